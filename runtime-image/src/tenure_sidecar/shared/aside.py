"""Things that are done apart from whoever asks for them."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from tenure_sidecar.errors import SidecarError

log = logging.getLogger(__name__)


class Aside:
    """The tasks that do them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it, whether or not somebody waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def over(self) -> None:
        """Wait until all are done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SidecarError):
            log.error("a bug ended something that was done aside", exc_info=error)

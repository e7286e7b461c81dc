"""A cut line is cut, whatever the moment."""

import asyncio
from typing import Any

import pytest

from tenure_gateway.sidecar import Line


class Answer:
    """Stands in for an answer of aiohttp: knows whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_cut_is_not_lost_between_the_answer_and_the_task_that_waits_for_it() -> None:
    line, answer = Line(), Answer()
    coming: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    dialling = asyncio.create_task(line.dial(coming))
    await asyncio.sleep(0)
    coming.set_result(answer)
    line.cut()
    with pytest.raises(TimeoutError):
        await dialling
    assert answer.closed


async def test_a_line_is_cut_after_nobody_answered() -> None:
    line = Line()
    coming: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    coming.set_exception(ConnectionError)
    with pytest.raises(ConnectionError):
        await line.dial(coming)
    line.cut()


async def test_a_line_that_is_cut_before_it_is_dialled_waits_for_nothing() -> None:
    line = Line()
    line.cut()
    with pytest.raises(TimeoutError):
        await line.dial(asyncio.get_running_loop().create_future())

"""A turn that waits or runs, and those who listen to it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from tenure_api.wire import Turn, TurnRequest
from tenure_sidecar.codec import encode
from tenure_sidecar.errors import RefusedError

_RESTARTED = b'{"type":"restarted"}\n'


def _turn_event(kind: bytes, turn: Turn) -> bytes:
    return b'{"type":"%b","turn":%b}\n' % (kind, turn.model_dump_json(by_alias=True).encode())


def _delta(text: str) -> bytes:
    return b'{"type":"delta","text":%b}\n' % encode(text)


class Live:
    """Collects the events of a turn; every listener reads them at its own pace.

    Whoever comes late first gets `started` and the text so far, in one piece.
    """

    def __init__(self, request: TurnRequest, digest: bytes) -> None:
        self.request = request
        self.digest = digest
        self._started = b""
        self._events: list[bytes] = []
        self._texts: list[str] = []
        self._refusal: RefusedError | None = None
        self._over = False
        self._listeners = 0
        self._waiters: list[asyncio.Future[None]] = []

    # --- for the engine ---

    @property
    def unheard(self) -> bool:
        """Whether nobody listens."""
        return self._listeners == 0

    def begin(self, turn: Turn) -> None:
        """The turn is recorded."""
        self._started = _turn_event(b"started", turn)
        self._wake()

    def refuse(self, error: RefusedError) -> None:
        """The turn is not taken."""
        self._refusal = error
        self._over = True
        self._wake()

    def text(self, text: str) -> None:
        """The answer goes on."""
        self._texts.append(text)
        self._publish(_delta(text))

    def restart(self) -> None:
        """The answer begins anew."""
        if self._texts:
            self._texts = []
            self._publish(_RESTARTED)

    def end(self, turn: Turn) -> None:
        """The turn has ended, on disk."""
        self._over = True
        self._publish(_turn_event(b"ended", turn))

    # --- for listeners ---

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While somebody listens. A turn that has not begun when nobody does is not taken."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    async def begun(self) -> None:
        """Wait until the turn is recorded. Raises `RefusedError` if it is not taken."""
        while not self._started and self._refusal is None:
            await self._change()
        if self._refusal is not None:
            raise self._refusal

    async def events(self) -> AsyncIterator[bytes]:
        """Lines of JSON, as many at a time as there are. The turn must have begun."""
        place = len(self._events) - (1 if self._over and self._events else 0)
        sofar = "".join(self._texts)
        yield self._started + _delta(sofar) if sofar else self._started
        while True:
            if place < len(self._events):
                ready, place = self._events[place:], len(self._events)
                yield b"".join(ready)
            elif self._over:
                return
            else:
                await self._change()

    def _publish(self, event: bytes) -> None:
        self._events.append(event)
        self._wake()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


def ended(request: TurnRequest, digest: bytes, turn: Turn) -> Live:
    """A turn that ended before anybody came to listen."""
    live = Live(request, digest)
    live.begin(turn)
    live.text("".join(item.text for item in turn.output))
    live.end(turn)
    return live

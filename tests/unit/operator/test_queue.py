"""The queue: one worker for a key, a bounded number in total, back-off on failure and none without."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_operator.errors import RefusedError, WaitingError
from tenure_operator.queue import Queue, backoff


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_back_off_doubles_from_a_second_to_five_minutes_and_is_spread(failures: int, random: float) -> None:
    longest = min(2.0 ** min(failures - 1, 30), 300.0)
    assert longest / 2 <= backoff(failures, random) <= longest


async def run(work: Callable[[str], Awaitable[float | None]], keys: str, workers: int = 4) -> list[tuple[str, str]]:
    """Asks for keys at once and returns the outcomes once as many runs have ended."""
    outcomes: list[tuple[str, str]] = []
    enough = asyncio.Event()

    def observe(key: str, outcome: str, _seconds: float) -> None:
        outcomes.append((key, outcome))
        if len(outcomes) == len(keys):
            enough.set()

    queue = Queue[str](work, workers, observe)
    for key in keys:
        queue.ask(key)
    running = asyncio.create_task(queue.run())
    await enough.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return outcomes


async def test_no_more_workers_than_allowed_run_at_a_time() -> None:
    now, most = 0, 0

    async def work(_key: str) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.001)
        now -= 1

    await run(work, "abcdefghijklmnop", workers=3)
    assert most == 3


async def test_a_key_is_not_worked_on_twice_at_a_time_and_no_ask_is_lost() -> None:
    running: set[str] = set()
    runs = 0
    again = asyncio.Event()

    async def work(key: str) -> None:
        nonlocal runs
        assert key not in running
        running.add(key)
        runs += 1
        if runs == 1:
            for _ in range(3):
                queue.ask("a")
            await asyncio.sleep(0.01)
        else:
            again.set()
        running.discard(key)

    queue = Queue[str](work, 4)
    queue.ask("a")
    task = asyncio.create_task(queue.run())
    await again.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert runs == 2


async def test_what_waits_or_is_refused_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    async def work(key: str) -> None:
        raise {"w": WaitingError("not yet"), "r": RefusedError("no"), "b": ValueError("oops")}[key]

    with caplog.at_level(logging.INFO):
        outcomes = await run(work, "wrb")
    assert sorted(outcomes) == [("b", "bug"), ("r", "refused"), ("w", "waiting")]
    assert [record.exc_info is not None for record in caplog.records if "bug" in record.message] == [True]
    assert all(record.exc_info is None for record in caplog.records if "bug" not in record.message)


async def test_a_run_may_ask_for_the_next_one() -> None:
    runs = 0

    async def work(_key: str) -> float | None:
        nonlocal runs
        runs += 1
        return 0.0 if runs < 3 else None

    outcomes: list[str] = []
    third = asyncio.Event()

    def observe(_key: str, outcome: str, _seconds: float) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 3:
            third.set()

    queue = Queue[str](work, 1, observe)
    queue.ask("a")
    task = asyncio.create_task(queue.run())
    await third.wait()
    assert not queue.is_waiting("a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

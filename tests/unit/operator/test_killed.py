"""The operator may be killed before or after any write: the next one goes on, and the outcome is the same."""

import pytest

from tenure_operator.kinds import CLAIMS, EVENTS, NETWORKS, PODS, SECRETS, SESSIONS, Kind
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi, Killed

STORY_WRITES = 14
"""More than the story has, so that its end is reached too."""


async def tell(bench: Bench) -> None:
    """What happens to a session: made, ready, its pod lost, ready again."""
    await bench.advance(1)
    if bench.api.find(PODS, "chat-session") is not None:
        bench.kubelet()
    await bench.advance(5)


def deadly(api: FakeApi, fatal: int, when: str) -> None:
    """The write of this number is the last, either not carried out or carried out without an answer."""
    count = 0

    def strike(*_: object) -> None:
        nonlocal count
        count += 1
        if count == fatal:
            raise Killed

    setattr(api, when, strike)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fatal", range(1, STORY_WRITES))
async def test_a_session_becomes_ready_whenever_the_operator_is_killed(fatal: int, when: str) -> None:
    api = FakeApi()
    first = await Bench(api).start()
    first.agent()
    first.session()
    deadly(api, fatal, when)
    try:
        await tell(first)
    except Killed:
        keys_before = [key for key in api.objects if key[0] is SECRETS]
    else:
        keys_before = []
    api.before = api.after = lambda *_: None
    second = await Bench(api, first.sidecars, at=first.clock).start()
    await tell(second)
    await tell(second)
    assert second.condition(SESSIONS, "chat") == ("True", "Ready")
    kinds = sorted(kind.name for kind, _, name in api.objects if name.startswith("chat") and kind is not EVENTS)
    assert kinds == ["AgentSession", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "Secret"]
    assert all(key in api.objects for key in keys_before)
    assert api.find(SECRETS, second.key_name()) is not None


async def test_fifty_sessions_become_ready_though_the_operator_is_killed_over_and_over() -> None:
    api = FakeApi()
    bench = await Bench(api).start()
    bench.agent()
    for number in range(50):
        bench.session(f"chat-{number}")
    for fatal in (30, 55, 7, 90, 3):
        deadly(api, fatal, "after")
        with pytest.raises(Killed):
            await bench.advance(5)
        bench = await Bench(api, bench.sidecars, at=bench.clock).start()
    api.after = lambda *_: None
    await bench.advance(10)
    for number in range(50):
        bench.kubelet(f"chat-{number}")
    await bench.advance(10)
    assert all(bench.condition(SESSIONS, f"chat-{n}") == ("True", "Ready") for n in range(50))
    count: dict[Kind, int] = {}
    for kind, namespace, _ in api.objects:
        if namespace == NAMESPACE:
            count[kind] = count.get(kind, 0) + 1
    assert [count[kind] for kind in (SECRETS, CLAIMS, NETWORKS, PODS)] == [50, 50, 50, 50]

"""Waiting for sessions to be Ready, and waking them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tenure_gateway.access import Access, Caller
from tenure_gateway.api_client import SESSIONS
from tenure_gateway.directory import Directory
from tenure_gateway.faults import (
    ClusterRefused,
    ClusterUnavailable,
    Fault,
    NotReady,
    Outdated,
    SessionAsleep,
    SessionGone,
    SessionStalled,
)
from tenure_gateway.ids import Key
from tenure_gateway.metrics import Metrics
from tenure_gateway.patience import Patience
from tenure_gateway.sidecar import Target
from tenure_gateway.wakes import Wakes
from unit.gateway.doubles import Object, StandInCluster
from unit.gateway.world import until

KEY = Key("shop", "s")
ALICE = Caller("alice", b"alice", {"user": "alice"})
TARGET = Target("claim-of-s", "10.0.0.1", "alice", 1)


class Scene:
    """A session, the API server that it is at, and who follows it."""

    def __init__(self) -> None:
        self.cluster = StandInCluster()
        self.directory = Directory()
        self.metrics = Metrics()
        access = Access(self.cluster, "tenure", 0, 0, lambda: 0.0)
        self.wakes = Wakes(self.directory, self.cluster, access, self.metrics)
        metadata = {"namespace": "shop", "name": "s", "uid": "u-s", "creationTimestamp": "2026-11-24T00:00:00Z"}
        self.session: Object = {"metadata": metadata, "spec": {"agentRef": {"name": "a"}, "subject": "alice"}}
        self.cluster.put(SESSIONS, self.session)

    def seen(self) -> None:
        """The watch shows the session as it is."""
        self.directory.sessions.put(self.cluster.objects[SESSIONS][KEY])

    def asleep(self, kept: bool = False) -> None:
        """The session ran once, and sleeps."""
        self.cluster.ready(KEY, "10.0.0.1")
        self.cluster.asleep(KEY, kept)
        self.seen()

    def wakes_up(self, address: str = "10.0.0.1") -> None:
        """The session is Ready again."""
        self.cluster.ready(KEY, address)
        self.seen()

    def waiting(self, hold: float = 5) -> asyncio.Task[Target]:
        """A request that wants the session."""
        patience = Patience(hold, asyncio.get_running_loop().time)
        return asyncio.create_task(self.wakes.ready(KEY, ALICE, patience))

    def counted(self, outcome: str) -> float:
        """Wakes with this outcome."""
        return self.metrics.registry.get_sample_value("tenure_gateway_wakes_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_ready_session_is_there_at_once(scene: Scene) -> None:
    scene.wakes_up()
    assert await scene.waiting(0) == TARGET


async def test_all_who_wait_hear_that_it_is_ready(scene: Scene) -> None:
    scene.seen()
    waiting = [scene.waiting() for _ in range(3)]
    await asyncio.sleep(0)
    scene.cluster.starting(KEY)
    scene.seen()
    await asyncio.sleep(0)
    scene.wakes_up()
    assert await asyncio.gather(*waiting) == [TARGET] * 3
    assert scene.directory.sessions._watchers == {}


async def test_a_session_whose_identity_is_not_known_yet_is_not_ready(scene: Scene) -> None:
    scene.wakes_up()
    status = {**scene.cluster.objects[SESSIONS][KEY]["status"], "identity": None}
    scene.cluster.set_status(KEY, status)
    scene.seen()
    with pytest.raises(NotReady):
        await scene.waiting(0)


def stalled(scene: Scene) -> None:
    condition = {"type": "Stalled", "status": "True", "reason": "R", "message": "m"}
    scene.cluster.set_status(KEY, {"conditions": [condition]})
    scene.seen()


@pytest.mark.parametrize(
    ("ending", "fault"),
    [
        (lambda scene: scene.directory.sessions.replace([], 1000), SessionGone),
        (stalled, SessionStalled),
    ],
)
async def test_who_waits_hears_that_it_is_gone_or_stalled(
    scene: Scene, ending: Callable[[Scene], None], fault: type[Fault]
) -> None:
    scene.seen()
    waiting = scene.waiting()
    await asyncio.sleep(0)
    ending(scene)
    with pytest.raises(fault):
        await waiting


async def test_at_the_end_of_patience_it_says_why_not(scene: Scene) -> None:
    scene.cluster.starting(KEY, "no node has room")
    scene.seen()
    with pytest.raises(NotReady) as caught:
        await scene.waiting(0)
    assert caught.value.message == "no node has room"


async def test_who_no_longer_waits_leaves_nothing_behind(scene: Scene) -> None:
    scene.asleep()
    waiting = scene.waiting()
    await until(lambda: scene.cluster.wakes)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert scene.directory.sessions._watchers == {}
    assert len(scene.wakes._writing) == 0


async def test_however_many_ask_a_session_is_woken_once(scene: Scene) -> None:
    scene.asleep()
    waiting = [scene.waiting() for _ in range(50)]
    await until(lambda: scene.cluster.wakes)
    later = [scene.waiting() for _ in range(50)]
    await asyncio.sleep(0.01)
    scene.wakes_up()
    targets = set(await asyncio.gather(*waiting, *later))
    assert targets == {TARGET._replace(generation=2)}
    assert scene.cluster.wakes == [(KEY, 1)]
    assert scene.counted("written") == 1
    assert scene.metrics.registry.get_sample_value("tenure_gateway_wake_seconds_count") == 100


async def test_a_session_that_somebody_else_has_woken_is_only_waited_for(scene: Scene) -> None:
    scene.asleep()
    version = int(scene.cluster.objects[SESSIONS][KEY]["metadata"]["resourceVersion"])
    await scene.cluster.wake_session(KEY, version, 1)
    scene.cluster.wakes.clear()
    waiting = scene.waiting()
    await asyncio.sleep(0.01)
    scene.wakes_up()
    await waiting
    assert scene.cluster.wakes == []
    assert scene.counted("outdated") == 1


async def test_a_session_that_falls_asleep_again_is_woken_again(scene: Scene) -> None:
    scene.asleep()
    waiting = scene.waiting()
    await until(lambda: scene.cluster.wakes == [(KEY, 1)])
    scene.cluster.ready(KEY, "10.0.0.2")
    scene.cluster.asleep(KEY)
    scene.seen()
    await until(lambda: scene.cluster.wakes == [(KEY, 1), (KEY, 2)])
    scene.wakes_up("10.0.0.3")
    assert (await waiting).generation == 3


async def test_a_wake_that_was_spoilt_by_somebody_is_written_anew(scene: Scene) -> None:
    scene.asleep()
    obj = scene.cluster.objects[SESSIONS][KEY]
    annotations = {"tenure.dev/wake": "9999"}
    scene.cluster.put(SESSIONS, {**obj, "metadata": {**obj["metadata"], "annotations": annotations}})
    scene.seen()
    waiting = scene.waiting()
    await until(lambda: scene.cluster.wakes == [(KEY, 1)])
    scene.wakes_up()
    await waiting


async def test_a_session_that_is_awake_by_now_is_not_woken(scene: Scene) -> None:
    scene.asleep()
    scene.cluster.ready(KEY, "10.0.0.1")  # and the watch has not shown it yet
    assert (await scene.waiting()).generation == 2
    assert scene.cluster.wakes == []
    assert scene.cluster.gets == 1


@pytest.mark.parametrize("trouble", [ClusterUnavailable("etcd"), Outdated("changed")])
async def test_a_wake_that_could_not_be_written_is_written_again(scene: Scene, trouble: Exception) -> None:
    scene.asleep()
    scene.cluster.wake_troubles = [trouble] * 4
    waiting = [scene.waiting() for _ in range(3)]
    await until(lambda: scene.cluster.wakes)
    scene.wakes_up()
    await asyncio.gather(*waiting)
    assert scene.cluster.wakes == [(KEY, 1)]


async def test_a_wake_that_can_never_be_written_ends_with_patience(scene: Scene) -> None:
    scene.asleep()
    scene.cluster.wake_troubles = [ClusterUnavailable("etcd")] * 1000
    with pytest.raises(NotReady, match="did not take it"):
        await scene.waiting(0.1)


async def test_an_api_server_that_says_nothing_is_not_waited_for_longer_than_patience(scene: Scene) -> None:
    async def silent(*_: Any) -> Object:
        await asyncio.Event().wait()
        raise AssertionError

    scene.asleep()
    scene.cluster.wake_session = silent  # type: ignore[assignment,method-assign]
    with pytest.raises(NotReady, match="did not take it"):
        await scene.waiting(0.1)


async def test_a_session_that_does_not_wake_is_given_up(scene: Scene) -> None:
    scene.asleep()
    with pytest.raises(NotReady, match="not woken in time"):
        await scene.waiting(0.1)
    assert scene.cluster.wakes == [(KEY, 1)]


async def test_a_refusal_is_told_at_once(scene: Scene) -> None:
    scene.asleep()
    scene.cluster.wake_troubles = [ClusterRefused("The session sleeps and cannot be woken: by order of the webhook.")]
    with pytest.raises(ClusterRefused, match="by order of the webhook"):
        await scene.waiting()
    assert scene.counted("refused") == 1


@pytest.mark.parametrize("seen", [True, False])
async def test_a_session_that_was_deleted_in_its_sleep_is_gone(scene: Scene, seen: bool) -> None:
    scene.asleep()
    if seen:
        scene.cluster.wake_troubles = [Outdated("changed")]
    scene.cluster.remove(SESSIONS, KEY)
    with pytest.raises(SessionGone):
        await scene.waiting()


async def test_a_session_that_is_kept_asleep_is_woken_for_who_may(scene: Scene) -> None:
    scene.asleep(kept=True)
    with pytest.raises(SessionAsleep, match="shop/s"):
        await scene.waiting()
    assert scene.cluster.wakes == []
    scene.cluster.wakers.add(("alice", "s"))
    waiting = scene.waiting()
    await until(lambda: scene.cluster.wakes)
    scene.wakes_up()
    await waiting


async def test_a_session_that_is_to_be_kept_asleep_by_now_is_not_woken(scene: Scene) -> None:
    scene.asleep()
    scene.cluster.asleep(KEY, kept=True)  # and the watch has not shown it yet
    with pytest.raises(SessionAsleep):
        await scene.waiting()
    assert scene.cluster.wakes == []

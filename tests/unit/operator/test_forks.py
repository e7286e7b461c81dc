"""A session that begins with the history of another."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tenure_api.names import session_pod
from tenure_api.report import JournalState, Origin, Report
from tenure_api.wire import Failure
from tenure_operator.kinds import PODS, SESSIONS
from unit.operator.bench import NAMESPACE, Bench, FakeSidecars
from unit.operator.fake_api import FakeApi


async def streamed(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


class Carriers(FakeSidecars):
    """Sidecars that give their state as a bundle, and take one."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[tuple[str, str]] = []
        self.broken = False
        self.refusal = ""

    def answer(self, request: httpx.Request) -> httpx.Response:
        uid = request.url.host.removeprefix("ip-")
        if request.url.path != "/v1/bundle":
            return super().answer(request)
        if self.broken:
            raise httpx.ConnectError("no route")
        if request.method == "GET" and self.refusal:
            failure = Failure(code="no_such_record", message=self.refusal)
            return httpx.Response(400, text=failure.model_dump_json(by_alias=True))
        if request.method == "GET":
            return httpx.Response(200, content=streamed(f"{uid}{request.url.query.decode()}"))
        self.carried.append((request.content.decode(), uid))
        before = self.reports.get(uid, Report(identity=uid, journal=JournalState.OPEN, idle_seconds=0.0))
        origin = Origin(session="shop/chat", sequence=7)
        self.reports[uid] = before.model_copy(update={"journal": JournalState.OPEN, "origin": origin})
        return httpx.Response(200, text=self.reports[uid].model_dump_json(by_alias=True))


@pytest.fixture
async def bench() -> Bench:
    bench = await Bench(FakeApi(), Carriers()).start()
    bench.agent(session={"idleTimeoutSeconds": 60})
    await bench.advance(0)
    return bench


def carriers(bench: Bench) -> Carriers:
    assert isinstance(bench.sidecars, Carriers)
    return bench.sidecars


def fork(bench: Bench, **fork_from: Any) -> None:
    bench.session("copy", source={"forkFrom": {"session": "chat", **fork_from}})


async def waits_for_its_state(bench: Bench) -> None:
    """The pod of the fork has started, and its journal is empty."""
    await bench.advance(0.1)
    uid = bench.identity("copy")
    bench.sidecars.reports[uid] = Report(identity=uid, journal=JournalState.AWAITING_BUNDLE, idle_seconds=0.0)
    bench.kubelet("copy", ready=False)
    await bench.advance(0.1)


async def test_a_fork_gets_the_state_of_its_source_up_to_where_it_is_asked_for(bench: Bench) -> None:
    await bench.running()
    fork(bench, atSequence=7)
    await waits_for_its_state(bench)
    assert carriers(bench).carried == [(f"{bench.identity()}at=7", bench.identity("copy"))]
    bench.kubelet("copy")
    await bench.advance(0.1)
    assert bench.condition(SESSIONS, "copy") == ("True", "Ready")
    assert bench.status(SESSIONS, "copy")["origin"] == {"session": "shop/chat", "sequence": 7}
    pod = bench.api.objects[PODS, NAMESPACE, session_pod("copy")]
    environment = {e["name"]: e.get("value") for e in pod["spec"]["initContainers"][0]["env"]}
    assert environment["TENURE_SOURCE"] == "Fork"


async def test_a_source_that_sleeps_is_woken_for_it_and_sleeps_again(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), idle_seconds=100.0)
    await bench.advance(80)
    bench.pod_is_gone()
    await bench.advance(1)
    assert bench.status(SESSIONS, "chat")["effectiveMode"] == "Hibernated"
    fork(bench)
    await waits_for_its_state(bench)
    assert bench.condition(SESSIONS, "copy") == ("False", "Restoring")
    assert bench.api.find(PODS, session_pod("chat")) is not None
    bench.kubelet("chat")
    await bench.advance(5)
    assert carriers(bench).carried == [(bench.identity(), bench.identity("copy"))]
    bench.kubelet("copy")
    await bench.advance(100)
    assert "deletionTimestamp" in bench.api.objects[PODS, NAMESPACE, session_pod("chat")]["metadata"]


async def test_a_fork_whose_source_cannot_be_reached_tries_again(bench: Bench) -> None:
    await bench.running()
    carriers(bench).broken = True
    fork(bench)
    await waits_for_its_state(bench)
    await bench.advance(30)
    assert bench.condition(SESSIONS, "copy") == ("False", "Restoring")
    carriers(bench).broken = False
    await bench.advance(60)
    assert carriers(bench).carried


async def test_a_fork_of_nothing_says_so_and_begins_when_its_source_is_there(bench: Bench) -> None:
    fork(bench)
    await bench.advance(1)
    assert bench.condition(SESSIONS, "copy") == ("False", "SourceUnavailable")
    assert bench.api.find(PODS, session_pod("copy")) is None
    await bench.running()
    await bench.advance(10)
    assert bench.api.find(PODS, session_pod("copy")) is not None


@pytest.mark.parametrize("other", [{"subject": "bob"}, {"agent": "another"}])
async def test_nobody_forks_what_is_anothers_or_of_another_agent(bench: Bench, other: dict[str, str]) -> None:
    bench.agent("another")
    bench.session("chat", **other)
    fork(bench)
    await bench.advance(10)
    assert bench.condition(SESSIONS, "copy", "Stalled") == ("True", "SourceInvalid")
    assert bench.api.find(PODS, session_pod("copy")) is None


async def test_a_fork_that_is_deleted_lets_its_source_sleep(bench: Bench) -> None:
    await bench.running()
    carriers(bench).broken = True
    fork(bench)
    await waits_for_its_state(bench)
    bench.sidecars.say(bench.identity(), idle_seconds=100.0)
    await bench.advance(200)
    assert "deletionTimestamp" not in bench.api.objects[PODS, NAMESPACE, session_pod("chat")]["metadata"]
    bench.api.remove(SESSIONS, NAMESPACE, "copy")
    await bench.advance(200)
    assert "deletionTimestamp" in bench.api.objects[PODS, NAMESPACE, session_pod("chat")]["metadata"]


async def test_a_fork_at_a_record_that_there_is_not_says_so_for_good(bench: Bench) -> None:
    await bench.running()
    carriers(bench).refusal = "the journal ends at record 9"
    fork(bench, atSequence=1000)
    await waits_for_its_state(bench)
    await bench.advance(10)
    assert bench.condition(SESSIONS, "copy", "Stalled") == ("True", "SourceInvalid")
    assert "record 9" in bench.message(SESSIONS, "copy")
    assert carriers(bench).carried == []

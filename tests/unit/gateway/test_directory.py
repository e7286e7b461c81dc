"""The directory under every order of lists, events and answers."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tenure_gateway.directory import SessionTable, Table, agent_view, session_view
from tenure_gateway.ids import Key

Object = dict[str, Any]
KEY = Key("ns", "s")


def session(version: int = 1, name: str = "s", **status: Any) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": f"u-{name}", "resourceVersion": str(version)}
    return {
        "metadata": {**metadata, "creationTimestamp": "2026-11-24T00:00:00Z"},
        "spec": {"agentRef": {"name": "a"}, "subject": "alice"},
        "status": status,
    }


def condition(kind: str, status: str, message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": "Because", "message": message}


READY: Object = {"podIP": "10.0.0.1", "identity": "c-s", "conditions": [condition("Ready", "True")]}


class AnyOrder(RuleBasedStateMachine):
    """A server whose watch lags behind, and a table that also hears answers: at the end of the watch it knows all."""

    @initialize()
    def start(self) -> None:
        self.version = 10
        self.server: dict[str, Object] = {}
        self.log: list[tuple[int, str, Object]] = []
        self.events: list[tuple[str, Object]] = []
        self.listed: tuple[list[Object], int] = ([], self.version)
        self.answers: list[Object] = []
        self.table = Table(session_view)
        self.table.replace([], self.version)

    names = st.sampled_from(["a", "b"])

    @rule(name=names)
    def write(self, name: str) -> None:
        self.version += 1
        self.server[name] = session(self.version, name)
        self.tell("put", self.server[name])
        self.answers.append(self.server[name])

    @rule(name=names)
    def delete(self, name: str) -> None:
        if self.server.pop(name, None) is not None:
            self.version += 1
            self.tell("forget", session(self.version, name))

    def tell(self, what: str, obj: Object) -> None:
        self.events.append((what, obj))
        self.log.append((self.version, what, obj))

    @rule()
    def watch(self) -> None:
        if self.events:
            what, obj = self.events.pop(0)
            getattr(self.table, what)(obj)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.answers:
            obj = data.draw(st.sampled_from(self.answers))
            assert self.table.offer(obj).version >= int(obj["metadata"]["resourceVersion"])

    @rule()
    def ask_for_a_list(self) -> None:
        self.listed = (list(self.server.values()), self.version)

    @rule()
    def watch_from_the_list(self) -> None:
        objects, version = self.listed
        self.table.replace(objects, version)
        self.events = [(what, obj) for at, what, obj in self.log if at > version]

    @invariant()
    def at_the_end_of_the_watch_it_knows_all(self) -> None:
        if hasattr(self, "table") and not self.events:
            known = {row.key.name: row.version for row in self.table}
            assert known == {name: int(obj["metadata"]["resourceVersion"]) for name, obj in self.server.items()}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_only_a_ready_session_has_an_address() -> None:
    assert session_view(session(**READY)).address == "10.0.0.1"
    assert session_view(session(podIP="10.0.0.1", conditions=[condition("Ready", "False")])).address is None
    assert session_view(session()).address is None


@pytest.mark.parametrize("annotation", ["{", "[]", "3", '{"a": 3}'])
def test_spoilt_metadata_is_no_metadata(annotation: str) -> None:
    obj = session()
    obj["metadata"]["annotations"] = {"tenure.dev/metadata": annotation}
    assert session_view(obj).metadata == {}


def in_pod(version: int, pod: str | None, name: str = "s") -> Object:
    return session(version, name, **({} if pod is None else {"podName": pod}))


def test_a_session_is_found_by_its_pod_while_it_has_it() -> None:
    table, pod = SessionTable(), Key("ns", "warm-session")
    table.put(in_pod(1, None))
    assert table.of_pod(pod) is None
    table.put(in_pod(2, "warm-session"))
    found = table.of_pod(pod)
    assert found is not None
    assert found.key == KEY
    table.put(in_pod(1, None))  # an older sight changes nothing
    assert table.of_pod(pod) is found
    assert table.of_pod(Key("other", "warm-session")) is None
    table.put(in_pod(3, "other-session"))
    assert table.of_pod(pod) is None
    table.replace([], 4)
    assert table.of_pod(Key("ns", "other-session")) is None
    assert table._by_pod == {}


def test_a_pod_that_several_sessions_have_speaks_for_none_of_them() -> None:
    table = SessionTable()
    table.put(in_pod(1, "p", "a"))
    table.put(in_pod(2, "p", "b"))
    assert table.of_pod(Key("ns", "p")) is None
    table.put(in_pod(3, None, "a"))
    found = table.of_pod(Key("ns", "p"))
    assert found is not None
    assert found.key.name == "b"


async def test_who_waits_for_a_pods_session_sees_it_come() -> None:
    table = SessionTable()
    waiting = asyncio.create_task(table.appears(Key("ns", "p"), 5))
    await asyncio.sleep(0)
    table.put(in_pod(1, "p"))
    found = await waiting
    assert found is not None
    assert await table.appears(Key("ns", "p"), 0) is found
    assert await table.appears(Key("ns", "q"), 0) is None


@pytest.mark.parametrize(
    ("text", "generation"), [(None, -1), ("0", 0), ("12", 12), ("", -1), ("-1", -1), ("1.5", -1), ("x", -1), ("²", -1)]
)
def test_a_wake_that_is_no_generation_is_none(text: str | None, generation: int) -> None:
    obj = session()
    if text is not None:
        obj["metadata"]["annotations"] = {"tenure.dev/wake": text}
    assert session_view(obj).woken == generation


def test_a_session_that_sleeps_has_no_address_though_it_is_ready() -> None:
    view = session_view(session(**{**READY, "effectiveMode": "Hibernated", "lease": {"generation": 4}}))
    assert (view.address, view.asleep, view.generation, view.identity) == (None, True, 4, "c-s")
    assert session_view(session(**READY)).address == "10.0.0.1"


@pytest.mark.parametrize(
    ("conditions", "blocked"),
    [
        ([], None),
        ([condition("Ready", "True")], None),
        ([condition("Ready", "Unknown")], None),
        ([condition("Ready", "False", "no Secret"), condition("Reconciling", "True")], None),
        ([condition("Ready", "False", "no Secret")], "no Secret"),
        ([condition("Ready", "False"), condition("Stalled", "True")], "Because"),
    ],
)
def test_an_agent_is_blocked_only_when_it_will_not_mend_itself(conditions: list[Object], blocked: str | None) -> None:
    metadata = {"namespace": "ns", "name": "a", "resourceVersion": "1", "creationTimestamp": "2026-11-24T00:00:00Z"}
    assert agent_view({"metadata": metadata, "status": {"conditions": conditions}}).blocked == blocked


def test_a_list_that_is_older_than_an_answer_does_not_take_it_back() -> None:
    table = Table(session_view)
    table.offer(session(5))
    table.replace([], 4)
    assert table.get(KEY) is not None

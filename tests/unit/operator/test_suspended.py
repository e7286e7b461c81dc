"""What a session says while a turn waits, when an outcome is unknown, and when a tool is down."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tenure_api.report import Suspension, ToolHealth, UnknownOutcome
from tenure_api.wire import Approval
from tenure_operator.kinds import AGENTS, EVENTS, SECRETS, SESSIONS, Manifest
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi

TURN = "a" * 32
UNKNOWN = UnknownOutcome(turn=TURN, step=7, function="refund", at=datetime(2026, 1, 1, 11, 59, 30, 5, UTC))
TOOLS: list[dict[str, Any]] = [{"name": "wait", "waitUntil": {}}]
TOKEN = {"name": "Authorization", "valueSecretRef": {"name": "orders"}}


def waits_for(*functions: str) -> Suspension:
    return Suspension(
        turn=TURN,
        approvals=[
            Approval(id=f"mcpr_{TURN}_{step}", tool="shop", function=function)
            for step, function in enumerate(functions, 3)
        ],
    )


@pytest.fixture
async def bench() -> Bench:
    bench = await Bench(FakeApi()).start()
    bench.agent(tools=TOOLS)
    return bench


async def said(bench: Bench, made: Manifest, **report: Any) -> None:
    """The sidecar says something new, and the operator has heard it."""
    bench.sidecars.say(bench.identity(), **report)
    await bench.advance(20)


def events(bench: Bench, reason: str) -> list[str]:
    return [m["type"] for (kind, _, _), m in bench.api.objects.items() if kind is EVENTS and m["reason"] == reason]


# --- waiting -------------------------------------------------------------------------------------------------------


async def test_a_call_that_needs_a_person_is_named_with_the_way_to_decide(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, active_turn=TURN, suspended=waits_for("refund", "close"))
    assert bench.condition(SESSIONS, "chat", "TurnSuspended") == ("True", "ApprovalPending")
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    message = bench.message(SESSIONS, "chat", "TurnSuspended")
    assert f"refund (mcpr_{TURN}_3), close (mcpr_{TURN}_4)" in message
    for words in (
        "POST /v1/responses",
        '"model": "shop/helper"',
        '"conversation": "shop/chat"',
        f'{{"type": "mcp_approval_response", "approval_request_id": "mcpr_{TURN}_3", "approve": true}}',
    ):
        assert words in message
    assert events(bench, "ApprovalPending") == ["Normal"]


async def test_many_approvals_leave_room_for_the_way_to_decide(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, suspended=waits_for(*["f" * 128] * 64))
    message = bench.message(SESSIONS, "chat", "TurnSuspended")
    assert "and 56 more" in message
    assert message.endswith('"approve": true}]}')


async def test_a_turn_that_waits_waits_on_without_a_pod(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, suspended=waits_for("refund"))
    message = bench.message(SESSIONS, "chat", "TurnSuspended")
    bench.pod_is_gone()
    await bench.advance(300)
    assert "podIP" not in bench.status(SESSIONS, "chat")
    assert bench.message(SESSIONS, "chat", "TurnSuspended") == message
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await again.advance(60)
    assert again.condition(SESSIONS, "chat", "TurnSuspended") == ("True", "ApprovalPending")
    assert events(bench, "ApprovalPending") == ["Normal"]


async def test_a_turn_that_waits_for_a_time_says_which(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, suspended=Suspension(turn=TURN, until=datetime(2026, 1, 3, 8, 0, tzinfo=UTC)))
    assert bench.condition(SESSIONS, "chat", "TurnSuspended") == ("True", "WaitingUntil")
    assert "goes on by itself at 2026-01-03T08:00:00Z" in bench.message(SESSIONS, "chat", "TurnSuspended")
    assert events(bench, "WaitingUntil") == []


async def test_the_condition_is_there_only_while_a_turn_waits(bench: Bench) -> None:
    made = await bench.running()
    assert bench.condition(SESSIONS, "chat", "TurnSuspended") is None
    await said(bench, made, suspended=waits_for("refund"))
    await said(bench, made, suspended=None)
    assert bench.condition(SESSIONS, "chat", "TurnSuspended") is None


async def test_a_turn_that_waits_for_days_does_not_hold_up_a_roll_out(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, active_turn=TURN)
    bench.agent(tools=TOOLS, runtime={"image": "acme/agent:2"})
    await bench.advance(60)
    assert bench.condition(SESSIONS, "chat", "Reconciling") == ("True", "Ready")
    assert "its turn has not ended" in bench.message(SESSIONS, "chat")
    await said(bench, made, suspended=waits_for("refund"))
    assert bench.condition(SESSIONS, "chat") == ("False", "Updating")


# --- unknown outcomes ----------------------------------------------------------------------------------------------


async def recovered(bench: Bench, call: str) -> None:
    bench.api.change(SESSIONS, NAMESPACE, "chat", {"metadata": {"annotations": {"tenure.dev/recovered": call}}})
    await bench.advance(0)


async def test_an_unknown_outcome_is_told_with_the_command_that_clears_it(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, unknown=UNKNOWN)
    assert bench.condition(SESSIONS, "chat", "RecoveryRequired") == ("True", "OutcomeUnknown")
    message = bench.message(SESSIONS, "chat", "RecoveryRequired")
    assert message.startswith(f"The call of refund at 2026-01-01T11:59:30Z (turn {TURN}, step 7) was interrupted")
    command = f"kubectl annotate agentsession chat -n shop --overwrite tenure.dev/recovered={TURN}/7"
    assert f"`{command}`" in message
    assert events(bench, "OutcomeUnknown") == ["Warning"]
    assert bench.status(SESSIONS, "chat")["unknownOutcome"] == {
        "call": f"{TURN}/7",
        "function": "refund",
        "time": "2026-01-01T11:59:30Z",
    }


async def test_it_is_cleared_at_once_for_that_call_and_for_no_other(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, unknown=UNKNOWN)
    await recovered(bench, f"{TURN}/6")
    assert bench.condition(SESSIONS, "chat", "RecoveryRequired") is not None
    await recovered(bench, f"{TURN}/7")
    assert bench.condition(SESSIONS, "chat", "RecoveryRequired") is None
    await said(bench, made, unknown=UNKNOWN.model_copy(update={"step": 9}))
    assert bench.condition(SESSIONS, "chat", "RecoveryRequired") == ("True", "OutcomeUnknown")


async def test_it_can_be_cleared_while_there_is_no_pod(bench: Bench) -> None:
    made = await bench.running()
    await said(bench, made, unknown=UNKNOWN)
    bench.pod_is_gone()
    await bench.advance(60)
    assert bench.condition(SESSIONS, "chat", "RecoveryRequired") == ("True", "OutcomeUnknown")
    await recovered(bench, f"{TURN}/7")
    assert bench.condition(SESSIONS, "chat", "RecoveryRequired") is None


# --- tools ---------------------------------------------------------------------------------------------------------


async def test_only_an_agent_with_tools_says_whether_they_are_available(bench: Bench) -> None:
    await bench.running()
    await bench.advance(20)
    assert bench.condition(SESSIONS, "chat", "ToolsAvailable") == ("True", "Available")
    bench.agent()
    await bench.advance(20)
    assert bench.condition(SESSIONS, "chat", "ToolsAvailable") is None


async def test_each_tool_with_a_problem_is_named(bench: Bench) -> None:
    made = await bench.running()
    down = ToolHealth(name="orders", reason="Unreachable", message="It does not answer.")
    other = ToolHealth(name="pay", reason="CredentialMissing", message="There is no key api-key in Secret pay.")
    await said(bench, made, tools=[down, other])
    assert bench.condition(SESSIONS, "chat", "ToolsAvailable") == ("False", "Unreachable")
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    message = bench.message(SESSIONS, "chat", "ToolsAvailable")
    assert message == "Tool orders: It does not answer. Tool pay: There is no key api-key in Secret pay."
    await said(bench, made, tools=[])
    assert bench.condition(SESSIONS, "chat", "ToolsAvailable") == ("True", "Available")


async def test_a_sidecar_that_does_not_know_the_tools_yet_does_not_call_them_available(bench: Bench) -> None:
    bench.agent()
    made = await bench.running()
    await bench.advance(20)
    bench.sidecars.deaf = True
    bench.agent(tools=TOOLS)
    await said(bench, made, turns=1)
    assert bench.condition(SESSIONS, "chat", "ToolsAvailable") is None
    bench.sidecars.deaf = False
    await bench.advance(20)
    assert bench.condition(SESSIONS, "chat", "ToolsAvailable") == ("True", "Available")


async def test_a_silent_sidecar_leaves_open_whether_tools_are_available(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.silent = True
    await bench.advance(120)
    assert bench.condition(SESSIONS, "chat", "ToolsAvailable") == ("Unknown", "Unreachable")


async def test_the_secret_of_a_header_must_exist_before_a_session_starts(bench: Bench) -> None:
    tool = {"name": "orders", "mcp": {"url": "http://orders/mcp", "headers": [TOKEN]}}
    bench.agent(tools=[*TOOLS, tool])
    await bench.advance(1)
    assert bench.condition(AGENTS, "helper") == ("False", "SecretNotFound")
    assert bench.message(AGENTS, "helper") == (
        "spec.tools[1].mcp.headers[0].valueSecretRef names Secret orders, "
        "which is not in this namespace: create it or change the field."
    )
    bench.api.put(SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "orders"}})
    await bench.advance(15)
    assert bench.condition(AGENTS, "helper") == ("True", "Ready")


async def test_an_agent_that_calls_one_that_is_not_there_is_ready_all_the_same(bench: Bench) -> None:
    bench.agent(tools=[{"name": "ask", "description": "Asks.", "agent": {"name": "nobody"}}])
    await bench.running()
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")


# --- lineage -------------------------------------------------------------------------------------------------------


async def test_a_session_made_for_a_call_says_whose(bench: Bench) -> None:
    marks = {"labels": {"tenure.dev/parent": "boss"}, "annotations": {"tenure.dev/call": f"{TURN}/4"}}
    spec = {"agentRef": {"name": "helper"}, "subject": "alice"}
    where = {"namespace": NAMESPACE, "name": "chat"}
    bench.api.put(SESSIONS, {"kind": "AgentSession", "metadata": {**where, **marks}, "spec": spec})
    await bench.advance(1)
    assert bench.status(SESSIONS, "chat")["lineage"] == {"parent": "boss", "call": f"{TURN}/4"}


@pytest.mark.parametrize("call", ["", "4", f"{TURN}/4/5", "x" * 100_000])
async def test_marks_that_are_not_the_gateways_are_not_believed(bench: Bench, call: str) -> None:
    marks = {"labels": {"tenure.dev/parent": "boss"}, "annotations": {"tenure.dev/call": call}}
    spec = {"agentRef": {"name": "helper"}, "subject": "alice"}
    where = {"namespace": NAMESPACE, "name": "chat"}
    bench.api.put(SESSIONS, {"kind": "AgentSession", "metadata": {**where, **marks}, "spec": spec})
    await bench.advance(1)
    assert "lineage" not in bench.status(SESSIONS, "chat")

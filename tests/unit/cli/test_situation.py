"""`why`: what is said of a session in each situation. Pure; nothing here asks a cluster."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure_api.conditions import Reason
from tenure_cli.errors import NotAllowedError
from tenure_cli.kube import AGENTS, CLAIMS, EVENTS, PODS, SESSIONS, Object
from tenure_cli.situation import Seen, Situation, State, explain
from unit.cli.desk import Desk, conditions, session

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
READY = ("Ready", "True", "Ready", "The session accepts turns.")
STATUS: Object = {"podName": "chat-1-session", "volumeClaimName": "chat-1-state", "lease": {"generation": 1}}


def look(*told: tuple[str, str, str, str], status: Object | None = None, **more: Any) -> Situation:
    """The situation of a session with these conditions; `more` is that of `session`, or a field of `Seen`."""
    fields: dict[str, Any] = {key: more.pop(key) for key in ("agent", "pod", "claim", "events", "now") if key in more}
    known = STATUS | {"conditions": conditions(*told)} | (status or {})
    return explain(Seen(session=session(status=known, **more), **{"now": NOW, **fields}))


def asleep(reason: str = "Idle", wake_at: str | None = None, **more: Any) -> Situation:
    hibernation = {"since": "2026-11-24T10:00:00Z", "reason": reason, "wakeAt": wake_at}
    status = {"effectiveMode": "Hibernated", "hibernation": hibernation, "lease": {"generation": 4}}
    told = more.pop("told", ())
    return look(("Ready", "True", "Hibernated", "The session sleeps."), *told, status=status, **more)


def unready(reason: str, message: str, *besides: tuple[str, str, str, str], **more: Any) -> Situation:
    return look(("Ready", "False", reason, message), *besides, **more)


def event(message: str, about: str = "chat-1-session", kind: str = "Pod", **more: Any) -> Object:
    told = {"type": "Warning", "message": message, "lastTimestamp": "2026-11-24T11:58:00Z", "metadata": {}}
    return told | {"involvedObject": {"kind": kind, "name": about}} | more


def test_one_that_runs_says_so_and_that_there_is_nothing_to_do() -> None:
    found = look(READY, status={"lastActivityTime": "2026-11-24T11:57:00Z"}, pod={"spec": {"nodeName": "node-a"}})
    assert found.state is State.AWAKE
    assert found.text == (
        "Session shop/chat-1 has been awake and taking turns for 3 h in pod chat-1-session on node node-a. "
        "It was last used 3 min ago. There is nothing to do."
    )


def test_one_that_the_operator_has_not_seen_is_new() -> None:
    found = explain(Seen(session=session(), now=NOW))
    assert (found.state, found.since) == (State.NEW, "2026-11-24T08:00:00Z")
    assert "component=operator" in found.text


def test_one_that_is_being_deleted_says_only_that() -> None:
    found = look(READY, deletionTimestamp="2026-11-24T11:59:00Z")
    assert found.state is State.DELETING
    assert found.text == (
        "Session shop/chat-1 has been on its way out for 60 s: it is being deleted, with its volume and key. "
        "There is nothing to do."
    )


class TestAsleep:
    def test_the_next_request_wakes_one_that_is_idle(self) -> None:
        found = asleep()
        assert (found.state, found.reason, found.since) == (State.ASLEEP, "Idle", "2026-11-24T10:00:00Z")
        assert "has been asleep for 2 h, since nobody used it for a while" in found.text
        assert "The next request wakes it." in found.text
        assert found.text.endswith("There is nothing to do.")

    def test_one_that_is_kept_asleep_says_how_to_wake_it(self) -> None:
        found = asleep("Requested", spec={"operatingMode": "Hibernated"})
        assert found.state is State.ASLEEP
        assert "kubectl tenure wake shop/chat-1" in found.text
        assert "next request" not in found.text

    def test_one_that_waits_for_a_time_says_when_it_wakes(self) -> None:
        assert "wakes by itself at 2026-11-25 08:00 UTC" in asleep(wake_at="2026-11-25T08:00:00Z").text

    def test_a_time_does_not_wake_one_that_is_kept_asleep(self) -> None:
        found = asleep("Requested", "2026-11-25T08:00:00Z", spec={"operatingMode": "Hibernated"})
        assert "does not wake it" in found.text

    def test_one_that_was_asked_to_wake_is_waking(self) -> None:
        assert asleep(annotations={"tenure.dev/wake": "4"}).state is State.WAKING

    def test_a_request_of_an_earlier_sleep_wakes_nothing(self) -> None:
        assert asleep(annotations={"tenure.dev/wake": "3"}).state is State.ASLEEP

    def test_one_that_is_to_run_again_is_waking(self) -> None:
        assert asleep("Requested").state is State.WAKING

    def test_an_approval_that_is_pending_is_said_of_one_that_sleeps_too(self) -> None:
        message = f"Turn {'a' * 32} waits until a person has decided on refund (mcpr_a_1). See the arguments …"
        found = asleep(told=[("TurnSuspended", "True", "ApprovalPending", message)])
        assert "waiting for a person's approval for 3 h: refund (mcpr_a_1)." in found.text
        assert "kubectl tenure chat shop/helper --session shop/chat-1" in found.text


class TestOnItsWay:
    def test_a_first_start_is_a_start(self) -> None:
        found = unready("PodStarting", "The pod is starting", now=datetime(2026, 11, 24, 9, 0, 5, tzinfo=UTC))
        assert found.state is State.STARTING
        assert "has been starting for 5 s (PodStarting): The pod is starting. Wait; it goes on by itself." in found.text

    def test_a_later_one_is_a_waking(self) -> None:
        found = unready("PodStarting", "The session is being woken.", status={"lease": {"generation": 5}})
        assert found.state is State.WAKING

    def test_probes_that_fail_meanwhile_are_told_only_when_it_takes_long(self) -> None:
        told = [event("Readiness probe failed")]
        soon = unready("PodStarting", "It starts.", events=told, now=datetime(2026, 11, 24, 9, 0, 5, tzinfo=UTC))
        assert "probe" not in soon.text
        assert "probe" in unready("PodStarting", "It starts.", events=told).text

    def test_one_that_takes_long_says_where_to_look(self) -> None:
        assert "kubectl describe pod chat-1-session -n shop" in unready("PodStarting", "The pod is starting.").text

    @pytest.mark.parametrize("reason", ["Updating", "Restoring", "Superseded", "Progressing"])
    def test_what_passes_by_itself_asks_for_nothing(self, reason: str) -> None:
        found = unready(reason, "It is at it.", now=datetime(2026, 11, 24, 9, 1, tzinfo=UTC))
        assert (found.state, found.reason) == (State.STARTING, reason)
        assert "goes on by itself" in found.text


class TestStuck:
    def test_one_without_a_node_quotes_the_scheduler_and_asks_for_room(self) -> None:
        found = unready("PodUnschedulable", "No node takes the pod: 0/2 nodes are available", events=[event("noise")])
        assert (found.state, found.reason) == (State.WAITING, "PodUnschedulable")
        for said in (
            "0/2 nodes are available.",
            "Make room in the cluster",
            "An event of pod chat-1-session 2 min ago",
        ):
            assert said in found.text

    def test_one_without_a_volume_names_the_claim(self) -> None:
        claim = {"metadata": {"name": "chat-1-state"}, "status": {"phase": "Pending"}}
        found = unready("VolumePending", "The volume is not there yet.", claim=claim)
        assert "Its volume claim chat-1-state is Pending." in found.text
        assert "kubectl describe pvc chat-1-state -n shop" in found.text

    def test_one_whose_volume_is_unreachable_asks_for_the_node(self) -> None:
        found = unready("VolumeUnreachable", "Node node-b, which holds the volume, does not answer.")
        assert found.state is State.WAITING
        assert "Bring back the node" in found.text

    def test_one_whose_agent_is_not_ready_names_it(self) -> None:
        assert "kubectl describe agent helper -n shop" in unready("AgentNotReady", "Agent helper is not ready").text

    @pytest.mark.parametrize(
        ("reason", "advice"),
        [
            ("KeyLost", "Restore the Secret"),
            ("KeyMismatch", "Put back the Secret"),
            ("JournalUnreadable", "Restore the volume"),
            ("PodFailing", "kubectl logs chat-1-session -n shop"),
            ("SourceInvalid", "fork or import anew"),
            ("SourceUnavailable", "Mend or wake the session"),
            ("NameConflict", "Rename or delete"),
        ],
    )
    def test_one_that_is_stalled_says_what_to_mend(self, reason: str, advice: str) -> None:
        found = unready(reason, "It is so", ("Stalled", "True", reason, "It is so"))
        assert (found.state, found.reason, found.since) == (State.STALLED, reason, "2026-11-24T09:00:00Z")
        assert f"unable to go on for 3 h ({reason}): It is so. " in found.text
        assert advice in found.text

    def test_a_reason_that_is_not_known_yet_is_told_as_it_is(self) -> None:
        found = unready("SomethingNew", "It is new.")
        assert "(SomethingNew): It is new." in found.text

    def test_only_the_latest_warnings_are_quoted_and_none_twice(self) -> None:
        said = [event(f"warning {n}", lastTimestamp=f"2026-11-24T11:0{n}:00Z") for n in range(5)]
        said += [event("all is well", type="Normal"), event("No node", lastTimestamp="2026-11-24T11:59:00Z")]
        text = unready("PodUnschedulable", "No node takes the pod.", events=said).text
        assert text.count("An event of") == 2
        assert "warning 3." in text
        assert "warning 4." in text

    def test_events_of_the_newer_kind_have_their_own_time(self) -> None:
        told = event("late", lastTimestamp=None, eventTime="2026-11-24T11:00:00.000000Z")
        assert "60 min ago" in unready("PodFailing", "It fails.", events=[told]).text


class TestBesides:
    def test_a_blocked_roll_out_says_which_revision_it_stays_at(self) -> None:
        blocked = conditions(("RolloutBlocked", "True", "SessionsFailing", "2 sessions do not start."))
        agent = {"status": {"revision": "r2", "conditions": blocked}}
        text = look(READY, status={"revision": "r1"}, agent=agent).text
        assert "stays at revision r1 instead of r2: 2 sessions do not start." in text
        assert "Mend or undo the last change of agent helper." in text

    def test_a_volume_that_is_nearly_full_says_what_to_do(self) -> None:
        told = ("VolumeHealthy", "False", "NearlyFull", "The volume is nearly full: 91 % … Give the agent more.")
        assert "nearly full: 91 %" in look(READY, told).text

    def test_a_call_with_an_unknown_outcome_is_told(self) -> None:
        told = ("RecoveryRequired", "True", "OutcomeUnknown", "The call of pay was interrupted … clear this with `x`.")
        assert "The call of pay was interrupted" in look(READY, told).text

    def test_model_tools_and_policy_are_told_when_they_are_amiss(self) -> None:
        text = look(
            READY,
            ("ModelReachable", "False", "Unauthorized", "The endpoint refuses the key."),
            ("ToolsAvailable", "False", "Unreachable", "Tool orders: no answer."),
            ("PolicyApplied", "False", "Delivering", "The sidecar has not acknowledged it yet."),
        ).text
        for said in ("Unauthorized", "Tool orders: no answer.", "not acknowledged"):
            assert said in text

    def test_what_is_well_or_not_known_is_not_told(self) -> None:
        text = look(
            READY,
            ("ModelReachable", "Unknown", "NotYetCalled", "The model was not called yet."),
            ("VolumeHealthy", "True", "Healthy", "The volume has room."),
        ).text
        assert "model" not in text
        assert "has room" not in text

    def test_one_that_expires_says_when(self) -> None:
        text = look(READY, spec={"expiresAt": (NOW + timedelta(days=3)).isoformat()}).text
        assert "deleted with its state in 3 d" in text

    def test_one_that_is_woken_for_a_while_says_that_it_sleeps_again(self) -> None:
        assert "sleeps again" in look(READY, spec={"operatingMode": "Hibernated"}).text

    def test_a_turn_that_waits_for_a_time_asks_for_nothing(self) -> None:
        told = ("TurnSuspended", "True", "WaitingUntil", "Turn x goes on by itself at 2026-11-25T08:00:00Z.")
        assert look(READY, told).text.endswith("There is nothing to do.")


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("stalled", [True, False])
def test_every_reason_makes_a_paragraph(reason: Reason, stalled: bool) -> None:
    told = [("Ready", "False", reason.value, "x")] + ([("Stalled", "True", reason.value, "x")] if stalled else [])
    bare = look(*told, status={"podName": None, "volumeClaimName": None, "lease": None}).text
    assert "{" not in bare
    assert bare.endswith(".")
    assert "\n" not in bare


class TestTheCommand:
    def test_it_gathers_pod_claim_agent_and_events(self) -> None:
        desk = Desk()
        told = conditions(("Ready", "False", "PodFailing", "It fails."))
        desk.cluster.put(SESSIONS, session(status={"conditions": told, "setName": "warm-7"}))
        desk.cluster.put(AGENTS, {"metadata": {"namespace": "shop", "name": "helper"}})
        pod = {"metadata": {"namespace": "shop", "name": "warm-7-session"}, "status": {"phase": "Pending"}}
        claim = {"metadata": {"namespace": "shop", "name": "warm-7-state"}, "status": {"phase": "Lost"}}
        desk.cluster.put(PODS, pod)
        desk.cluster.put(CLAIMS, claim)
        metadata = {"namespace": "shop", "name": "e1"}
        desk.cluster.put(EVENTS, event("pull failed", "warm-7-session") | {"metadata": metadata})
        outcome = desk.run("why", "chat-1", "--output", "json")
        assert outcome.json["state"] == "Waiting"
        text = " ".join(outcome.json["notes"])
        for said in ("warm-7-session is Pending", "warm-7-state is Lost", "pull failed"):
            assert said in text
        assert outcome.json["todo"]

    def test_it_says_what_it_can_to_who_may_see_the_session_only(self) -> None:
        desk = Desk()
        desk.cluster.put(SESSIONS, session(status={"conditions": conditions(READY)}))
        desk.cluster.refusals = dict.fromkeys((AGENTS, PODS, CLAIMS, EVENTS), NotAllowedError("no"))
        outcome = desk.run("why", "chat-1")
        assert outcome.code == 0
        assert "awake" in outcome.out

    def test_a_session_that_is_not_there_is_not_found(self) -> None:
        assert Desk().run("why", "absent").code == 3

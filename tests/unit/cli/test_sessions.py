"""`sessions`, `wake`, `sleep` and `fork`: what they ask of the API server."""

import re

import pytest

from tenure_api.session import AgentSession
from tenure_cli.errors import NotAllowedError
from tenure_cli.kube import SESSIONS, Object
from unit.cli.desk import Desk, conditions, put_all, session

ASLEEP: Object = {"effectiveMode": "Hibernated", "lease": {"generation": 4}}
AWAKE: Object = {"effectiveMode": "Running", "lease": {"generation": 4}}
KEPT: Object = {"operatingMode": "Hibernated"}


def desk_with(*sessions: Object) -> Desk:
    desk = Desk()
    put_all(desk.cluster, sessions)
    return desk


class TestListing:
    def test_it_shows_what_each_session_does(self) -> None:
        told = conditions(
            ("Ready", "True", "Hibernated", ""), ("TurnSuspended", "True", "ApprovalPending", "It waits.")
        )
        desk = desk_with(session(status=ASLEEP | {"turns": 3, "conditions": told}), session("chat-2", agent="other"))
        lines = desk.run("sessions").out.splitlines()
        assert lines[0].split()[:5] == ["NAME", "AGENT", "MODE", "READY", "REASON"]
        assert lines[1].split()[:7] == ["chat-1", "helper", "Hibernated", "True", "Hibernated", "ApprovalPending", "3"]
        assert lines[2].split()[:4] == ["chat-2", "other", "Running", "Unknown"]

    def test_it_shows_those_of_one_agent_as_json(self) -> None:
        desk = desk_with(session(), session("chat-2", agent="other"))
        (one,) = desk.run("sessions", "other", "--output", "json").json["sessions"]
        assert (one["name"], one["agent"], one["subject"], one["turns"]) == ("chat-2", "other", "kate", None)

    def test_it_shows_all_namespaces_if_asked(self) -> None:
        elsewhere = session("chat-3")
        elsewhere["metadata"]["namespace"] = "office"
        desk = desk_with(session(), elsewhere)
        assert [line.split()[0] for line in desk.run("sessions", "-A").out.splitlines()] == [
            "NAMESPACE",
            "shop",
            "office",
        ]
        assert "chat-3" not in desk.run("sessions").out

    def test_none_is_an_answer_too(self) -> None:
        assert Desk().run("sessions").out == "No sessions in shop.\n"

    def test_who_may_not_see_them_is_told_so(self) -> None:
        desk = Desk()
        desk.cluster.refusals[SESSIONS] = NotAllowedError("Kubernetes does not let you have sessions in shop: no")
        outcome = desk.run("sessions")
        assert (outcome.code, outcome.out) == (4, "")


class TestWake:
    def test_it_names_the_lease_that_sleeps(self) -> None:
        desk = desk_with(session(status=ASLEEP))
        assert desk.run("wake", "chat-1").out == "Session shop/chat-1 wakes.\n"
        assert desk.cluster.patches == [{"metadata": {"annotations": {"tenure.dev/wake": "4"}}}]

    def test_one_that_is_awake_is_left_alone(self) -> None:
        desk = desk_with(session(status=AWAKE))
        assert desk.run("wake", "chat-1").code == 0
        assert desk.cluster.patches == []

    def test_one_that_is_kept_asleep_sleeps_again_afterwards(self) -> None:
        desk = desk_with(session(status=ASLEEP, spec=KEPT))
        assert "sleeps again" in desk.run("wake", "chat-1").out
        assert "spec" not in desk.cluster.patches[0]

    def test_to_keep_it_awake_is_asked_in_the_same_breath(self) -> None:
        desk = desk_with(session(status=ASLEEP, spec=KEPT))
        assert desk.run("wake", "--keep", "chat-1", "--output", "json").json == {
            "session": "shop/chat-1",
            "woken": True,
            "kept": True,
        }
        expected = {"metadata": {"annotations": {"tenure.dev/wake": "4"}}, "spec": {"operatingMode": "Running"}}
        assert desk.cluster.patches == [expected]

    def test_to_keep_one_awake_that_is_kept_so_changes_nothing(self) -> None:
        desk = desk_with(session(status=AWAKE))
        desk.run("wake", "--keep", "chat-1")
        assert desk.cluster.patches == []


class TestSleep:
    @pytest.mark.parametrize(("status", "said"), [(AWAKE, "sleeps as soon as"), (ASLEEP, "chat-1 sleeps. To wake it")])
    def test_it_asks_for_the_mode(self, status: Object, said: str) -> None:
        desk = desk_with(session(status=status))
        assert said in desk.run("sleep", "chat-1").out
        assert desk.cluster.patches == [{"spec": {"operatingMode": "Hibernated"}}]


class TestFork:
    def test_it_makes_a_session_of_the_same_agent_and_subject(self) -> None:
        desk = desk_with(session())
        outcome = desk.run("fork", "chat-1", "--at", "7", "--name", "attempt", "--output", "json")
        assert outcome.json == {
            "session": "shop/attempt",
            "forkFrom": {"session": "shop/chat-1", "atSequence": 7},
        }
        made = desk.cluster.objects[SESSIONS, "shop", "attempt"]
        parsed = AgentSession.model_validate(made)
        assert parsed.spec.source is not None
        assert parsed.spec.source.fork_from is not None
        assert (parsed.spec.source.fork_from.session, parsed.spec.source.fork_from.at_sequence) == ("chat-1", 7)
        assert (parsed.spec.agent_ref.name, parsed.spec.subject) == ("helper", "kate")

    def test_it_finds_a_name_that_fits(self) -> None:
        desk = desk_with(session("x" * 52))
        found = desk.run("fork", "x" * 52, "--output", "json").json["session"]
        assert re.fullmatch(r"shop/x{40,45}-[a-z2-7]{6}", found)
        assert len(found) <= len("shop/") + 52

    @pytest.mark.parametrize("name", ["office/other", "x" * 53, "Not_A_Name", "a/b/c"])
    def test_a_name_that_cannot_be_is_refused_before_anything_is_made(self, name: str) -> None:
        desk = desk_with(session())
        assert desk.run("fork", "chat-1", "--name", name).code == 1
        assert len(desk.cluster.objects) == 1

    def test_a_name_that_is_taken_is_refused(self) -> None:
        assert desk_with(session(), session("taken")).run("fork", "chat-1", "--name", "taken").code == 1

    def test_what_is_not_there_cannot_be_forked(self) -> None:
        assert Desk().run("fork", "absent").code == 3


@pytest.mark.parametrize("arguments", [("-n", "office", "wake", "chat-1"), ("wake", "chat-1", "-n", "office")])
def test_options_may_stand_before_the_command_and_after_it(arguments: tuple[str, ...]) -> None:
    assert "office/chat-1" in Desk().run(*arguments).err

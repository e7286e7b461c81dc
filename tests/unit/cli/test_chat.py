"""`chat` and `history`, against the real gateway with stand-ins for sidecars and cluster."""

import argparse
import asyncio
import json
from typing import Any

import pytest

from tenure_cli.chat import Chat
from tenure_cli.choice import waiting_turn
from tenure_cli.console import Console
from tenure_cli.errors import CliError, NotAllowedError
from tenure_cli.kube import SESSIONS, Object
from tenure_cli.names import Key
from tenure_cli.reach import Reach
from tenure_gateway.ids import Key as GatewayKey
from unit.cli.desk import Desk, Outcome, Script, Stream, conditions, session
from unit.gateway.courses import Deed, Used, Void
from unit.gateway.world import World

ASKING: list[Deed] = [Used("look", output="7 pieces"), Used("refund", ask=True, arguments='{"order": 7}'), "Refunded."]


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(common=("--gateway", world.url, "--token", world.alice, "-n", "shop"))


async def done(desk: Desk, *arguments: str, stdin: str = "") -> Outcome:
    return await asyncio.to_thread(desk.run, *arguments, stdin=stdin)


class Seat:
    """A person at a terminal in the session `shop/mine`."""

    def __init__(self, world: World, script: Script, name: str = "mine") -> None:
        options = argparse.Namespace(
            gateway=world.url,
            token=world.alice,
            as_serviceaccount=None,
            kubeconfig=None,
            context=None,
            namespace="shop",
        )
        self.console = Console(Stream(terminal=True), Stream(terminal=True), Stream(terminal=True))
        self._reach = Reach(options, self.console)
        self._script = script
        self.waiting: str | None = None
        self._key = Key("shop", name)

    async def hold(self, resume: bool = False) -> str:
        def hold() -> None:
            with self._reach:
                chat = Chat(self._reach, self._key, self._script, lambda: self.waiting)
                if resume:
                    chat.resume()
                chat.hold()

        await asyncio.to_thread(hold)
        return self.shown

    @property
    def shown(self) -> str:
        assert isinstance(self.console.stdout, Stream)
        return self.console.stdout.getvalue()

    @property
    def noted(self) -> str:
        assert isinstance(self.console.stderr, Stream)
        return self.console.stderr.getvalue()


async def test_in_a_pipe_the_whole_input_is_one_message_and_only_the_answer_comes_out(world: World, desk: Desk) -> None:
    outcome = await done(desk, "chat", "helper", "--new", stdin="one\ntwo\n")
    assert (outcome.code, outcome.out) == (0, "one\ntwo\n")


async def test_nothing_to_say_makes_no_session(world: World, desk: Desk) -> None:
    outcome = await done(desk, "chat", "helper", "--new", stdin=" \n")
    assert (outcome.code, world.sessions) == (1, {})
    assert "standard input is empty" in outcome.err


async def test_text_that_became_void_is_not_in_a_pipe(world: World, desk: Desk) -> None:
    world.speech = lambda heard: [Void("Not th"), "This."]
    assert (await done(desk, "chat", "helper", "--new", stdin="say")).out == "This.\n"


async def test_on_a_terminal_void_text_is_said_to_be_void(world: World) -> None:
    world.session()
    world.speech = lambda heard: [Void("Not th\n" * 80), "This."]
    shown = await Seat(world, Script(["say"])).hold()
    assert shown.index("Not th") < shown.index("void") < shown.index("This.")


async def test_a_turn_is_one_json_document(world: World, desk: Desk) -> None:
    world.session()
    world.speech = lambda heard: [Used("look", output="7 pieces"), "Seven."]
    outcome = await done(desk, "chat", "helper", "--session", "mine", "--output", "json", stdin="How many?")
    told = outcome.json
    assert (told["session"], told["status"], told["text"]) == ("shop/mine", "completed", "Seven.")
    assert (told["calls"][0]["name"], told["approvals"], told["error"]) == ("look", [], None)


async def test_in_a_pipe_a_turn_that_needs_approval_has_its_own_exit_code_and_says_how_to_decide(
    world: World, desk: Desk
) -> None:
    world.session()
    world.speech = lambda heard: list(ASKING)
    outcome = await done(desk, "chat", "helper", "--session", "mine", stdin="Refund order 7.")
    assert outcome.code == 6
    assert 'shop.refund({"order": 7})' in outcome.err
    assert "kubectl tenure chat shop/helper --session shop/mine" in outcome.err
    again = await done(desk, "chat", "helper", "--session", "mine", stdin="And now?")
    assert again.code == 6
    assert "On a terminal" in again.err


async def test_a_person_approves_inline_and_sees_calls_and_results(world: World) -> None:
    world.session()
    world.speech = lambda heard: list(ASKING)
    script = Script(["Refund order 7."], [True])
    shown = await Seat(world, script).hold()
    assert script.asked == ['The agent wants to call shop.refund({"order": 7})\nApprove?']
    assert shown.index("shop.look") < shown.index("7 pieces") < shown.index("shop.refund") < shown.index("Refunded.")


async def test_a_refused_call_is_not_made_and_is_shown_so(world: World) -> None:
    world.session()
    world.speech = lambda heard: list(ASKING)
    assert "✗ not approved" in await Seat(world, Script(["Refund order 7."], [False])).hold()


@pytest.mark.parametrize("on_coming_back", [True, False])
async def test_who_comes_back_is_asked_what_the_turn_still_waits_for(
    world: World, desk: Desk, on_coming_back: bool
) -> None:
    world.session()
    world.speech = lambda heard: list(ASKING)
    await done(desk, "chat", "helper", "--session", "mine", stdin="Refund order 7.")
    seat = Seat(world, script := Script(["And now?"], [True, True]))
    seat.waiting = next(iter(world.volumes[GatewayKey("shop", "mine")].turns))
    if on_coming_back:
        assert "Refunded." in await seat.hold(resume=True)
    else:
        assert "Refunded." in await seat.hold()
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    ("told", "turn"),
    [
        (
            conditions(("TurnSuspended", "True", "ApprovalPending", f"It waits for f (mcpr_{'a' * 32}_2).")),
            "a" * 32,
        ),
        (conditions(("TurnSuspended", "True", "WaitingUntil", "Turn x goes on by itself.")), None),
        ([], None),
    ],
)
def test_the_turn_that_waits_is_known_by_the_sessions_status(told: list[Object], turn: str | None) -> None:
    desk = Desk()
    desk.cluster.put(SESSIONS, session("mine", status={"conditions": told}))
    reach = desk.reach(argparse.Namespace(kubeconfig=None, context=None), Console(Stream(), Stream(), Stream()))
    assert waiting_turn(reach, Key("shop", "mine")) == turn
    assert waiting_turn(reach, Key("shop", "absent")) is None


async def test_who_comes_back_sees_what_was_last_said(world: World, desk: Desk) -> None:
    world.session()
    await done(desk, "chat", "helper", "--session", "mine", stdin="My parrot is Polly.")
    shown = await Seat(world, Script([])).hold(resume=True)
    assert "user: My parrot is Polly." in shown
    assert "assistant: My parrot is Polly." in shown


async def test_ctrl_c_cancels_the_turn_and_the_conversation_goes_on(world: World) -> None:
    world.session()

    class Impatient(Stream):
        def write(self, text: str) -> int:
            if "slow" in text:
                raise KeyboardInterrupt
            return super().write(text)

    world.speech = lambda heard: ["slow"] if heard[-1] == "first" else ["quick"]
    seat = Seat(world, Script(["first", "second"]))
    seat.console.stdout = Impatient(terminal=True)
    assert "quick" in await seat.hold()
    assert "Cancelled." in seat.noted


async def test_ctrl_c_at_the_prompt_only_clears_the_line(world: World) -> None:
    world.session()
    assert "hello" in await Seat(world, Script([KeyboardInterrupt(), "", "hello"])).hold()


async def test_a_turn_that_fails_says_why_and_the_conversation_goes_on(world: World, desk: Desk) -> None:
    key = world.session()
    world.pod(key).breaks = ["fail", "fail", "fail"]
    outcome = await done(desk, "chat", "helper", "--session", "mine", stdin="hello")
    assert outcome.code == 1
    assert "the model said no" in outcome.err
    seat = Seat(world, Script(["hello", "again"]))
    await seat.hold()
    assert seat.noted.count("the model said no") == 2


async def test_what_a_terminal_would_obey_is_not_shown(world: World) -> None:
    world.session()
    world.speech = lambda heard: ["\x1b[2Jgone\u202e", Used("refund", ask=True, arguments='{"n": "\x1b[1A"}'), "ok"]
    script = Script(["say"], [True])
    shown = await Seat(world, script).hold()
    assert "[2Jgone" in shown
    for text in (shown, script.asked[0]):
        assert "\x1b[2J" not in text
        assert "\x1b[1A" not in text
        assert "\u202e" not in text


async def test_an_unknown_agent_is_not_found(desk: Desk) -> None:
    outcome = await done(desk, "chat", "nobody", "--new", stdin="hello")
    assert outcome.code == 3
    assert "shop/nobody" in outcome.err


async def test_a_token_that_the_gateway_does_not_take_is_explained(world: World) -> None:
    desk = Desk(common=("--gateway", world.url, "--token", "wrong", "-n", "shop"))
    outcome = await done(desk, "chat", "helper", "--new", stdin="hello")
    assert outcome.code == 4
    assert "--audience tenure" in outcome.err


async def test_a_gateway_that_is_not_there_is_worth_another_try(desk: Desk) -> None:
    desk.common = ("--gateway", "http://127.0.0.1:9", "--token", "some", "-n", "shop")
    assert (await done(desk, "chat", "helper", "--new", stdin="hello")).code == 5


class TestWhichSession:
    """Which session a conversation goes on in."""

    async def choice(self, world: World, desk: Desk, *arguments: str) -> Outcome:
        # Known by a ServiceAccount's token, which the stand-in gives and the gateway is made to take.
        desk.common = ("--gateway", world.url, "--as-serviceaccount", "alice", "-n", "shop")
        name = "system:serviceaccount:shop:alice"
        token = world.cluster.user(name, namespaces=("shop",))
        desk.cluster.account_token = lambda *_: token  # type: ignore[method-assign]
        return await done(desk, "chat", "helper", *arguments, "--output", "json", stdin="hello")

    def known(self, world: World, desk: Desk, name: str, used: str, **more: Any) -> None:
        subject = "system:serviceaccount:shop:alice"
        world.session(name, subject)
        status = {"lastActivityTime": used}
        desk.cluster.put(SESSIONS, session(name, subject=subject, status=status, **more))

    async def test_it_is_the_callers_own_latest_conversation(self, world: World, desk: Desk) -> None:
        self.known(world, desk, "older", "2026-11-24T09:00:00Z")
        self.known(world, desk, "newer", "2026-11-24T10:00:00Z")
        self.known(world, desk, "child", "2026-11-24T11:00:00Z", labels={"tenure.dev/parent": "x"})
        self.known(world, desk, "brief", "2026-11-24T12:00:00Z", spec={"expiresAt": "2026-12-24T00:00:00Z"})
        desk.cluster.put(SESSIONS, session("foreign", status={"lastActivityTime": "2026-11-24T13:00:00Z"}))
        outcome = await self.choice(world, desk)
        assert outcome.json["session"] == "shop/newer"
        assert "--new begins another" in outcome.err

    async def test_it_is_a_new_one_for_who_may_not_list_them(self, world: World, desk: Desk) -> None:
        desk.cluster.refusals[SESSIONS] = NotAllowedError("no")
        outcome = await self.choice(world, desk)
        assert outcome.json["session"].startswith("shop/helper-")

    async def test_a_new_one_gets_the_name_that_is_given(self, world: World, desk: Desk) -> None:
        made = []

        def create(kind: object, manifest: dict[str, dict[str, str]]) -> object:
            made.append(manifest)
            world.session(manifest["metadata"]["name"], manifest["spec"]["subject"])
            return manifest

        desk.cluster.create = create  # type: ignore[method-assign, assignment]
        outcome = await self.choice(world, desk, "--session", "named", "--new")
        assert outcome.json["session"] == "shop/named"
        assert made[0]["spec"] == {"agentRef": {"name": "helper"}, "subject": "system:serviceaccount:shop:alice"}

    async def test_a_name_that_is_taken_is_said_to_be(self, world: World, desk: Desk) -> None:
        desk.cluster.put(SESSIONS, session("taken"))
        outcome = await self.choice(world, desk, "--session", "taken", "--new")
        assert outcome.code == 1
        assert "leave out --new" in outcome.err

    async def test_a_name_without_a_session_is_not_found(self, world: World, desk: Desk) -> None:
        assert (await self.choice(world, desk, "--session", "absent")).code == 3


async def test_the_history_is_told_in_order_with_calls_and_approvals(world: World, desk: Desk) -> None:
    world.session()
    world.speech = lambda heard: list(ASKING)
    await Seat(world, Script(["Refund order 7."], [True])).hold()
    outcome = await done(desk, "history", "mine")
    assert outcome.out.splitlines() == [
        "user: Refund order 7.",
        '→ shop.look({"n": 1})',
        '? approval asked for shop.refund({"order": 7})',
        '→ shop.refund({"order": 7})',
        "assistant: Refunded.",
    ]
    told = (await done(desk, "history", "shop/mine", "--output", "json")).json
    assert told["session"] == "shop/mine"
    assert [item["type"] for item in told["items"]][:2] == ["message", "mcp_call"]


async def test_a_history_longer_than_a_page_is_told_in_full(world: World, desk: Desk) -> None:
    world.session()
    long: list[Deed] = [*(Used(f"f{n}") for n in range(120)), "ok"]
    world.speech = lambda heard: long
    await done(desk, "chat", "helper", "--session", "mine", stdin="go")
    assert len((await done(desk, "history", "mine", "--output", "json")).json["items"]) == 122


async def test_the_history_of_another_ones_session_is_not_found(world: World, desk: Desk) -> None:
    world.session(subject="bob")
    outcome = await done(desk, "history", "mine")
    assert outcome.code == 3
    assert "shop/mine" in outcome.err


def test_json_documents_hold_what_is_not_ascii(world: World) -> None:
    console = Console(Stream(), Stream(), Stream(), as_json=True)
    console.result({"text": "ü"}, "")
    assert isinstance(console.stdout, Stream)
    assert json.loads(console.stdout.getvalue()) == {"text": "ü"}


def test_errors_have_exit_codes_of_their_own() -> None:
    assert CliError.code == 1
    assert {error.code for error in CliError.__subclasses__()} == {1, 3, 4, 5, 6}

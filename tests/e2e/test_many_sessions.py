"""Ten times as many sessions as there is room for, and one session that wakes a thousand times while all else dies."""

import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.crowd import Member, Tally, owned, room, session_of, should_own
from harness.killing import Killer
from harness.kube import eventually
from harness.sleeping import asleep, generation, pod
from harness.tenure import RELEASE, SYSTEM, Place
from harness.turns import insisted, waited_out

FULL = os.environ.get("TENURE_SOAK") == "1"
SESSIONS, ROOM, AT_A_TIME, SECONDS = (300, 30, 20, 600) if FULL else (12, 4, 3, 20)
WAKES = 1000 if FULL else 10
DEATHS = 0.25
"""Share of the wakes during which something dies, after the first ones, during which each victim dies once."""
SLEEPY = {"storage": {"size": "16Mi"}, "idleTimeoutSeconds": 1}


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    return place.agent("sleepy", session=SLEEPY)


@pytest.fixture
def little_room(place: Place) -> Iterator[None]:
    place.kube.apply(room(ROOM))
    yield
    place.kube.delete("resourcequota", "room")


@pytest.mark.soak
@pytest.mark.timeout(3600 if FULL else 400)
def test_ten_times_as_many_sessions_as_pods_converse_and_none_loses_or_mixes_up_anything(
    place: Place, agent: str, little_room: None
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, tally = random.Random(seed), Tally()
    client = place.client()
    members = [Member(agent, client, number) for number in range(SESSIONS)]
    end = time.monotonic() + SECONDS

    def converse(member: Member) -> None:
        if not member.said or time.monotonic() < end:
            tally.add(member.converse())

    rounds = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        while rounds < 2 or time.monotonic() < end:
            chance.shuffle(members)
            list(pool.map(converse, members))
            rounds += 1
        chance.shuffle(members)
        list(pool.map(Member.recall, members))
    print(f"{rounds} rounds: {tally}")

    names = {session_of(member.conversation) for member in members}
    assert len(names) == SESSIONS
    assert {s["metadata"]["name"] for s in place.kube.items("agentsessions")} == names
    eventually(lambda: not place.kube.items("pods"), 120)
    assert owned(place) == should_own(place)
    assert all(len(of_a_kind) == SESSIONS for of_a_kind in owned(place).values())
    place.kube.run("delete", "agentsessions", "--all", "--wait=false")
    eventually(lambda: not any(owned(place).values()), 120, 1)


def deaths(place: Place, killer: Killer, session: str) -> list[Callable[[], object]]:
    """What may die around a session: its pod, the operator that leads, a gateway."""
    system = place.kube.within(SYSTEM)
    killer_of_system = Killer(system)

    def the_pod() -> None:
        if found := pod(place, session):
            killer.kill_pod(found["metadata"]["name"])

    def the_operator() -> None:
        holder = system.get("lease", f"{RELEASE}-operator")["spec"].get("holderIdentity") or ""
        if name := holder.split("_")[0]:
            killer_of_system.kill_pod(name)

    def a_gateway() -> None:
        serving = system.items("pods", "app.kubernetes.io/component=gateway")
        killer_of_system.kill_pod(random.choice(serving)["metadata"]["name"])

    return [the_pod, the_operator, a_gateway]


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600 if FULL else 500)
def test_a_session_that_wakes_and_sleeps_while_all_around_it_dies_keeps_its_history_and_its_lease_only_rises(
    place: Place, agent: str, killer: Killer
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    client, conversation = place.client(), place.session("sisyphus", "sleepy")
    choices = deaths(place, killer, "sisyphus")
    last, said = generation(place, "sisyphus"), []
    asleep(place, "sisyphus")

    def die(after: float, death: Callable[[], object]) -> None:
        time.sleep(after)
        # The victim may be gone already, or be so new that it cannot be killed: that is a death more or less.
        eventually(lambda: death() is None, 60)

    for number in range(WAKES):
        word = f"{number}-{secrets.token_hex(4)}"
        death = choices[number] if number < len(choices) else chance.choice(choices)
        dies = number < len(choices) or chance.random() < DEATHS
        reaper = threading.Thread(target=die, args=(chance.uniform(0, 5), death)) if dies else None
        if reaper:
            reaper.start()
        answer = insisted(client, 240, model=agent, conversation=conversation, input=f"say: {word}")
        assert answer.output_text == word
        said += [f"say: {word}", word]
        if reaper:
            reaper.join()
        asleep(place, "sisyphus", 120)
        now = generation(place, "sisyphus")
        assert now > last, f"wake {number}: the lease's generation was {last} and is {now}"
        last = now

    def transcript() -> list[str]:
        items = client.conversations.items.list(conversation, order="asc", limit=100)
        return [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]

    assert eventually(lambda: waited_out(transcript), 120) == said
    print(f"{WAKES} wakes, {last} pods")

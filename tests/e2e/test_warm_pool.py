"""A warm pool on a cluster: sessions claim its sets at once while the operator dies, and it follows its agent."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest

from harness import manifests
from harness.killing import Killer
from harness.kube import KubectlError, Manifest, eventually, is_ready
from harness.sleeping import asleep, awake
from harness.tenure import RELEASE, SYSTEM, Place
from harness.turns import insisted
from tenure_api.names import POD_HASH_ANNOTATION, SET_LABEL, WARM_LABEL, session_claim

FULL = os.environ.get("TENURE_SOAK") == "1"
SESSIONS, SIZE = (100, 20) if FULL else (8, 3)
PATIENCE = 1800.0 if FULL else 240.0
STORAGE = {"size": "16Mi"}


def pooled(place: Place, name: str, size: int, **spec: object) -> str:
    """An agent with a pool; its sessions sleep soon, so that many of them find room."""
    session = {"storage": STORAGE, "idleTimeoutSeconds": 5, "warmPool": {"size": size}}
    return place.agent(name, session=session, **spec)


def warm(place: Place, agent: str) -> dict[str, Manifest]:
    """The pods of an agent that no session has, by their set."""
    found = place.kube.items("pods", f"{WARM_LABEL},tenure.dev/agent={agent}")
    return {pod["metadata"]["labels"][SET_LABEL]: pod for pod in found}


def full(place: Place, agent: str, size: int) -> dict[str, Manifest]:
    """The pods of a pool as soon as it says that all of them are ready."""
    status = place.kube.get("agent", agent)["status"].get("warmPool") or {"ready": 0, "starting": 0}
    pods = warm(place, agent)
    assert (status["ready"], status["starting"], len(pods)) == (size, 0, size), status
    return pods


@pytest.fixture
def emptied(place: Place) -> Iterator[None]:
    """Gives all room back afterwards."""
    yield
    for agent in place.kube.items("agents"):
        place.kube.patch("agent", agent["metadata"]["name"], {"spec": {"session": {"warmPool": {"size": 0}}}})
    place.kube.run("delete", "agentsessions", "--all", "--wait=false")
    eventually(lambda: not place.kube.items("pods"), 180)
    eventually(lambda: not place.kube.items("pvc"), 60)


def kill_the_leader(place: Place, but: str = "") -> str:
    """Kills the operator that leads, if it is another than was killed before; returns its name."""
    system = place.kube.within(SYSTEM)

    def leader() -> str:
        holder: str = system.get("lease", f"{RELEASE}-operator")["spec"].get("holderIdentity") or ""
        assert holder.split("_")[0] not in ("", but)
        return holder.split("_")[0]

    found = eventually(leader, 90)
    with suppress(KubectlError):  # it may just have ended by itself
        Killer(system).kill_pod(found)
    return found


@pytest.mark.soak
@pytest.mark.timeout(3600 if FULL else 600)
def test_many_sessions_claim_sets_at_once_while_the_operator_dies_twice_and_none_is_used_twice(
    place: Place, killer: Killer, emptied: None
) -> None:
    pooled(place, "crowded", SIZE)
    sets = set(eventually(lambda: full(place, "crowded", SIZE), PATIENCE, 1))
    subject = place.subject()
    names = [f"crowd-{number}" for number in range(SESSIONS)]
    place.kube.apply(*(manifests.session(name, "crowded", subject) for name in names))
    first = kill_the_leader(place)
    kill_the_leader(place, but=first)

    def all_ready() -> list[Manifest]:
        found = place.kube.items("agentsessions")
        waiting = [session["metadata"]["name"] for session in found if not is_ready(session)]
        assert len(found) == SESSIONS
        assert not waiting, f"{len(waiting)} are not ready, such as {waiting[:3]}"
        return found

    statuses = [session["status"] for session in eventually(all_ready, PATIENCE, 2)]
    claimed = [status["setName"] for status in statuses if status["setName"] not in names]
    print(f"{len(claimed)} of {SESSIONS} sessions claimed a set; {len(set(claimed) & sets)} of the first {SIZE}")
    assert claimed
    for field in ("setName", "identity", "volumeClaimName"):
        assert max(Counter(status[field] for status in statuses).values()) == 1, field
    eventually(lambda: full(place, "crowded", SIZE), PATIENCE, 2)

    def only_what_should_be() -> None:
        volumes = {claim["metadata"]["name"] for claim in place.kube.items("pvc")}
        ours = {session_claim(status["setName"]) for status in statuses}
        assert volumes == ours | {session_claim(name) for name in warm(place, "crowded")}

    def checked() -> bool:
        only_what_should_be()
        return True

    eventually(checked, 120, 2)


def test_a_claimed_session_converses_sleeps_wakes_and_goes_with_all_that_it_was_given(
    place: Place, emptied: None
) -> None:
    model = pooled(place, "helper", 1)
    (set_name,) = eventually(lambda: full(place, "helper", 1), 120)
    conversation = place.session("chat", "helper")
    status = place.kube.get("agentsession", "chat")["status"]
    assert status["setName"] == set_name
    answer = insisted(place.client(), 60, model=model, conversation=conversation, input="say: hello")
    assert answer.output_text == "hello"
    assert asleep(place, "chat", 120)["setName"] == set_name
    answer = insisted(place.client(), 60, model=model, conversation=conversation, input="say: again")
    assert answer.output_text == "again"
    woken = awake(place, "chat")
    assert (woken["setName"], woken["lease"]["generation"]) == (set_name, 2)
    items = place.client().conversations.items.list(conversation, order="asc")
    assert [item.content[0].text for item in items] == ["say: hello", "hello", "say: again", "again"]  # type: ignore[union-attr, index]
    place.kube.delete("agentsession", "chat", "--wait=false")
    kinds = ("pods", "pvc", "networkpolicies", "secrets")
    eventually(lambda: not any(place.kube.items(kind, f"{SET_LABEL}={set_name}") for kind in kinds), 60)


def test_a_pool_follows_a_change_of_its_agent(place: Place, emptied: None) -> None:
    pooled(place, "changing", 2)
    before = eventually(lambda: full(place, "changing", 2), 120)
    hashes = {pod["metadata"]["annotations"][POD_HASH_ANNOTATION] for pod in before.values()}
    pooled(place, "changing", 2, runtime={"resources": {"requests": {"cpu": "11m"}}})

    def renewed() -> dict[str, Manifest]:
        pods = full(place, "changing", 2)
        assert not set(pods) & set(before)
        return pods

    after = eventually(renewed, 180, 1)
    assert not hashes & {pod["metadata"]["annotations"][POD_HASH_ANNOTATION] for pod in after.values()}


def test_the_operator_can_delete_a_volume_of_a_pool_and_no_other(place: Place, emptied: None) -> None:
    pooled(place, "guarded", 2)
    first, second = sorted(eventually(lambda: full(place, "guarded", 2), 120))
    place.session("kept", "guarded")
    taken = place.kube.get("agentsession", "kept")["status"]["setName"]
    free = second if taken == first else first
    operator = place.kube.acting_as(f"system:serviceaccount:{SYSTEM}:{RELEASE}-operator")
    eventually(lambda: WARM_LABEL not in place.kube.get("pvc", session_claim(taken))["metadata"]["labels"], 30)
    with pytest.raises(KubectlError, match="only volumes of warm pools"):
        operator.run("delete", "pvc", session_claim(taken), "--dry-run=server")
    operator.run("delete", "pvc", session_claim(free), "--dry-run=server")

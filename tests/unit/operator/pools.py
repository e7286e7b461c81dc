"""Warm pools on the bench: what kubelets and the garbage collector do, and what is looked at."""

from collections import Counter

from tenure_api.names import SET_LABEL, WARM_LABEL
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, SECRETS, SESSIONS, Manifest
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi

CHILDREN = (PODS, CLAIMS, NETWORKS, SECRETS)


def pooled(bench: Bench, size: int, name: str = "helper", **spec: object) -> Manifest:
    """An agent with a warm pool."""
    return bench.agent(name, session={"warmPool": {"size": size}}, **spec)


async def filled(size: int = 3, api: FakeApi | None = None) -> Bench:
    """An operator with a pool that is full."""
    bench = await Bench(api or FakeApi()).start()
    pooled(bench, size)
    await live(bench, 30)
    assert len(ready_sets(bench)) == size
    bench.api.writes.clear()
    bench.outcomes.clear()
    return bench


def nodes(bench: Bench) -> None:
    """Kubelets start what is to run, and end what is to go."""
    for (kind, namespace, name), pod in list(bench.api.objects.items()):
        if kind is not PODS:
            continue
        if "deletionTimestamp" in pod["metadata"]:
            bench.api.remove(PODS, namespace, name)
        elif pod["status"]["phase"] == "Pending":
            bench.kubelet(pod["metadata"]["labels"][SET_LABEL])


def collect(bench: Bench) -> None:
    """The garbage collector takes what has lost all its owners."""
    while True:
        there = {each["metadata"]["uid"] for each in bench.api.objects.values()}
        gone = [
            where
            for where, each in bench.api.objects.items()
            if (owners := each["metadata"].get("ownerReferences")) and not any(o["uid"] in there for o in owners)
        ]
        if not gone:
            return
        for where in gone:
            bench.api.remove(*where)


async def live(bench: Bench, seconds: float, step: float = 0.5) -> None:
    """Time passes in a cluster whose other controllers work."""
    for _ in range(round(seconds / step)):
        await bench.advance(step)
        nodes(bench)
        collect(bench)
    await bench.advance(0)


def ready_sets(bench: Bench) -> list[str]:
    """The sets that a session can claim."""
    pool = bench.world.pools.of((NAMESPACE, "helper"))
    return list(pool.ready) if pool else []


def warm_pods(bench: Bench) -> list[str]:
    """The sets whose pods no session has."""
    return sorted(
        pod["metadata"]["labels"][SET_LABEL]
        for (kind, _, _), pod in bench.api.objects.items()
        if kind is PODS and WARM_LABEL in pod["metadata"]["labels"]
    )


def sets_of_sessions(bench: Bench) -> dict[str, str]:
    """The set that each session has, by its status."""
    found = [(name, each.get("status", {})) for (kind, _, name), each in bench.api.objects.items() if kind is SESSIONS]
    return {name: status["setName"] for name, status in found if "identity" in status}


def check(bench: Bench) -> None:
    """No set is two sessions', every session is Ready on what is its own, and nothing else is left but the pool."""
    sets = sets_of_sessions(bench)
    names = [name for kind, _, name in bench.api.objects if kind is SESSIONS]
    assert sorted(sets) == sorted(names)
    assert max(Counter(sets.values()).values(), default=1) == 1
    for name in names:
        assert bench.condition(SESSIONS, name) == ("True", "Ready"), (name, bench.status(SESSIONS, name))
        uid = bench.api.objects[SESSIONS, NAMESPACE, name]["metadata"]["uid"]
        identity = bench.identity(sets[name])
        assert bench.status(SESSIONS, name)["identity"] == identity
        assert bench.sidecars.reports[identity].bound in (None, uid)
        if sets[name] != name:
            assert bench.sidecars.reports[identity].bound == uid
    size = sum(
        each["spec"].get("session", {}).get("warmPool", {}).get("size", 0)
        for (kind, _, _), each in bench.api.objects.items()
        if kind is AGENTS
    )
    expected = set(sets.values())
    for kind in CHILDREN:
        found = {
            each["metadata"]["labels"][SET_LABEL]
            for (k, _, _), each in bench.api.objects.items()
            if k is kind and SET_LABEL in each["metadata"].get("labels", {})
        }
        assert len(found) == len(expected) + size, (kind.name, sorted(found), sorted(expected))
        assert expected <= found
        if kind is not SECRETS:  # whose labels nobody may change
            assert len(found - expected) == len(
                [
                    1
                    for (k, _, _), each in bench.api.objects.items()
                    if k is kind and WARM_LABEL in each["metadata"]["labels"]
                ]
            )

"""Our own lists find what the watches do not tell, and notice watches that tell nothing."""

import asyncio

import pytest

from tenure_api.names import MANAGED_BY
from tenure_operator import resync
from tenure_operator.cache import Cache
from tenure_operator.errors import UnavailableError
from tenure_operator.kinds import AGENTS, CONFIG_MAPS, Kind
from tenure_operator.resync import GRACE_SECONDS, Resync, Watches
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi


async def test_a_vanished_object_of_which_no_watch_told_is_noticed() -> None:
    bench = await Bench(FakeApi()).start()
    bench.agent()
    await bench.advance(1)
    bench.api.told = lambda *_: None
    bench.api.remove(CONFIG_MAPS, NAMESPACE, "helper-agent")
    await bench.advance(1)
    assert bench.api.find(CONFIG_MAPS, "helper-agent") is None
    await bench.resync.all()
    await bench.advance(1)
    assert bench.api.find(CONFIG_MAPS, "helper-agent") is not None


async def test_an_object_that_was_created_after_the_list_stays() -> None:
    api, cache = FakeApi(), Cache()
    learned: list[object] = []

    async def late_pages(*_: object, **__: object):  # type: ignore[no-untyped-def]
        yield [], 150
        cache.put(AGENTS, {"metadata": {"namespace": "shop", "name": "new", "resourceVersion": "160"}, "spec": {}})

    api.pages = late_pages  # type: ignore[method-assign]
    await Resync(api, cache, Watches(cache), learned.append).one(AGENTS)
    assert cache.get(AGENTS, "shop", "new") is not None


def an_agent(version: int) -> dict[str, object]:
    return {"metadata": {"namespace": "shop", "name": "helper", "resourceVersion": str(version)}, "spec": {}}


class Lagging:
    """A cache and its watches on a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cache = Cache(lambda: self.now)
        self.watches = Watches(self.cache, lambda: self.now)
        self.cache.put(AGENTS, an_agent(7))
        self.watches.owes(AGENTS, an_agent(7))


def test_a_watch_that_never_tells_is_stale_after_a_while() -> None:
    lagging = Lagging()
    assert lagging.watches.stale() is None
    lagging.now = GRACE_SECONDS + 1
    assert lagging.watches.stale() == "no news by watch of: agents"


async def test_what_a_list_finds_is_counted_and_owed_by_the_watch() -> None:
    lagging, api = Lagging(), FakeApi()
    api.put(CONFIG_MAPS, {"metadata": {"namespace": "shop", "name": "c", "labels": {MANAGED_BY: "tenure"}}})
    missed: list[tuple[Kind, int]] = []
    listing = Resync(api, lagging.cache, lagging.watches, lambda _: None, lambda *found: missed.append(found))
    await listing.one(CONFIG_MAPS)
    await listing.one(CONFIG_MAPS)
    assert missed == [(CONFIG_MAPS, 1), (CONFIG_MAPS, 0)]
    lagging.now = GRACE_SECONDS + 1
    assert lagging.watches.stale() == "no news by watch of: agents, configmaps"


def test_a_watch_that_tells_late_is_not_stale() -> None:
    lagging = Lagging()
    lagging.now = GRACE_SECONDS - 1
    lagging.watches.told(AGENTS, 7)
    lagging.now = 10 * GRACE_SECONDS
    assert lagging.watches.stale() is None


def test_a_watch_that_has_told_already_owes_nothing() -> None:
    lagging = Lagging()
    lagging.watches.told(AGENTS, 9)
    lagging.watches.owes(AGENTS, an_agent(8))
    lagging.now = 10 * GRACE_SECONDS
    assert lagging.watches.stale() is None


def test_news_of_something_older_settles_no_debt_and_news_without_a_debt_is_welcome() -> None:
    lagging = Lagging()
    lagging.watches.told(AGENTS, 6)
    lagging.watches.told(CONFIG_MAPS, 50)
    lagging.now = GRACE_SECONDS + 1
    assert lagging.watches.stale() == "no news by watch of: agents"


async def test_it_lists_soon_after_a_watch_has_listed_anew_and_then_not_until_its_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resync, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(resync, "INTERVAL_SECONDS", 3600.0)
    cache = Cache()
    listing = Resync(FakeApi(), cache, Watches(cache), lambda _: None)
    lists = 0

    async def count() -> None:
        nonlocal lists
        lists += 1
        if lists == 1:
            raise UnavailableError("no answer")

    monkeypatch.setattr(listing, "all", count)
    running = asyncio.create_task(listing.run())
    await asyncio.sleep(0.05)
    assert lists == 1  # soon after the start, and its failure ends nothing
    assert "no answer" in caplog.text
    listing.relisted()
    await asyncio.sleep(0.05)
    assert lists == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_watch_need_not_tell_of_what_is_gone() -> None:
    lagging = Lagging()
    lagging.cache.forget(AGENTS, ("shop", "helper"), 8)
    lagging.now = 10 * GRACE_SECONDS
    assert lagging.watches.stale() is None


async def test_missing_definitions_are_waited_for() -> None:
    api = FakeApi()

    async def missing(*_: object, **__: object):  # type: ignore[no-untyped-def]
        from tenure_operator.errors import NotFoundError

        raise NotFoundError("404")
        yield

    api.pages = missing  # type: ignore[method-assign]
    cache = Cache()
    with pytest.raises(UnavailableError, match="install the CRDs"):
        await Resync(api, cache, Watches(cache), lambda _: None).all()

"""One leader at a time, by a Lease, whatever the clocks say."""

import asyncio
from collections.abc import Iterator

import pytest

from tenure_operator.errors import LostLeaseError, UnavailableError
from tenure_operator.kinds import LEASES
from tenure_operator.leader import DURATION_SECONDS, RENEW_DEADLINE_SECONDS, Leader
from tenure_operator.rbac import LEASE
from unit.operator.fake_api import FakeApi


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """A clock that sleeping moves."""
    clock = Clock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clock  # type: ignore[return-value]


def leader(api: FakeApi, name: str, clock: Clock) -> Leader:
    return Leader(api, "tenure-system", name, clock)


def holder(api: FakeApi) -> str:
    found = api.find(LEASES, LEASE, "tenure-system")
    assert found is not None
    return str(found["spec"]["holderIdentity"])


async def test_the_first_takes_it_and_the_second_stands_by(clock: Clock) -> None:
    api = FakeApi()
    assert await leader(api, "one", clock).attempt()
    assert not await leader(api, "two", clock).attempt()
    assert holder(api) == "one"


async def test_a_restarted_holder_resumes_at_once(clock: Clock) -> None:
    api = FakeApi()
    assert await leader(api, "one", clock).attempt()
    assert await leader(api, "one", clock).attempt()
    found = api.find(LEASES, LEASE, "tenure-system")
    assert found is not None
    assert found["spec"]["leaseTransitions"] == 0


async def test_a_dead_holder_is_followed_only_after_its_lease_has_not_changed_for_its_duration(clock: Clock) -> None:
    api = FakeApi()
    await leader(api, "one", clock).attempt()
    standby = leader(api, "two", clock)
    assert not await standby.attempt()
    clock.now += DURATION_SECONDS - 0.1
    assert not await standby.attempt()
    clock.now += 0.1
    assert await standby.attempt()
    assert holder(api) == "two"


async def test_a_holder_that_renews_is_not_followed(clock: Clock) -> None:
    api = FakeApi()
    first, standby = leader(api, "one", clock), leader(api, "two", clock)
    await first.attempt()
    for _ in range(20):
        clock.now += 10
        await first.attempt()
        assert not await standby.attempt()


async def test_a_released_lease_is_free_at_once(clock: Clock) -> None:
    api = FakeApi()
    first = leader(api, "one", clock)
    await first.attempt()
    await first.release()
    assert await leader(api, "two", clock).attempt()


async def test_a_lease_that_is_not_ours_is_not_released(clock: Clock) -> None:
    api = FakeApi()
    await leader(api, "one", clock).attempt()
    second = leader(api, "two", clock)
    await second.attempt()
    await second.release()
    assert holder(api) == "one"


async def test_a_holder_that_cannot_renew_stops_before_another_may_begin(clock: Clock) -> None:
    api = FakeApi()
    first = leader(api, "one", clock)
    await first.attempt()

    def fail(*_: object) -> None:
        raise UnavailableError("no answer")

    api.before = fail
    began = clock.now
    with pytest.raises(LostLeaseError):
        await first.keep()
    assert RENEW_DEADLINE_SECONDS <= clock.now - began < DURATION_SECONDS


async def test_a_holder_that_finds_another_stops_at_once(clock: Clock) -> None:
    api = FakeApi()
    first = leader(api, "one", clock)
    await first.attempt()
    api.change(LEASES, "tenure-system", LEASE, {"spec": {"holderIdentity": "two"}})
    with pytest.raises(LostLeaseError, match="two"):
        await first.keep()


async def test_two_that_try_at_the_same_moment_do_not_both_win(clock: Clock) -> None:
    api = FakeApi()
    await leader(api, "dead", clock).attempt()
    one, two = leader(api, "one", clock), leader(api, "two", clock)
    await one.attempt()
    await two.attempt()
    clock.now += DURATION_SECONDS
    outcomes = await asyncio.gather(one._survive(one.attempt()), two._survive(two.attempt()))
    assert outcomes.count(True) == 1

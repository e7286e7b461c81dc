"""The schedule against a model: whatever is asked, taken and done, in whatever order."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tenure_operator.schedule import Schedule

KEYS = st.sampled_from("abcd")


class Compared(RuleBasedStateMachine):
    """A schedule beside the plainest thing that could be right."""

    taken_keys = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule[str]()
        self.now = 0.0
        self.due: dict[str, float] = {}
        self.taken: set[str] = set()

    @rule(key=KEYS, delay=st.floats(0, 10))
    def ask(self, key: str, delay: float) -> None:
        self.schedule.ask(key, self.now + delay)
        self.due[key] = min(self.due.get(key, self.now + delay), self.now + delay)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        ready = {k: at for k, at in self.due.items() if at <= self.now and k not in self.taken}
        if key is None:
            assert not ready
            return
        assert ready[key] == min(ready.values())
        del self.due[key]
        self.taken.add(key)

    @rule(key=KEYS)
    def done(self, key: str) -> None:
        if key in self.taken:
            self.taken.remove(key)
            self.schedule.done(key)

    @invariant()
    def agrees(self) -> None:
        waiting = {k: at for k, at in self.due.items() if k not in self.taken}
        assert self.schedule.next_due() == min(waiting.values(), default=None)
        assert {k for k in "abcd" if self.schedule.is_waiting(k)} == set(self.due)
        assert self.schedule.due_by(self.now) == len(self.taken) + sum(at <= self.now for at in waiting.values())


TestSchedule = Compared.TestCase


def test_the_heap_does_not_grow_with_repeated_asks() -> None:
    schedule = Schedule[str]()
    for number in range(1000):
        schedule.ask("a", 1000 - number)
        schedule.next_due()
    assert len(schedule._heap) <= 1000
    assert schedule.take(2000) == "a"
    assert schedule.next_due() is None
    assert schedule._heap == []

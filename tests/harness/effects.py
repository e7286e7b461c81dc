"""What calls of tools have done, as the tools themselves count it."""

from dataclasses import dataclass

from harness.control import Control


@dataclass(frozen=True)
class Count:
    """Calls and effects with one tag; by idempotency key where one was given."""

    calls: int
    effects: int
    calls_by_key: dict[str, int]
    effects_by_key: dict[str, int]


class Effects(Control):
    """The control side of the HTTP API and of the MCP server (see `tests/doubles/control`).

    A call with the argument `tag` comes to the holds `TAG/before` its effect, and `TAG/after` it, before the answer. No
    two runs may use the same tag.
    """

    def count(self, tag: str) -> Count:
        """What calls with a tag have done since the server started."""
        told = self._get("effects", tag=tag)
        return Count(told["calls"], told["effects"], told["callsByKey"], told["effectsByKey"])

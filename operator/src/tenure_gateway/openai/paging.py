"""Pages of lists, as OpenAI's clients ask for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from tenure_gateway.openai.errors import invalid

_PAGE = 20
_MAX_PAGE = 100
"""OpenAI's documented default and limit of `limit`."""


@dataclass(frozen=True)
class Page:
    """Which page of a list is wanted. `after` is the id of the last entry of the page before."""

    limit: int
    newest_first: bool
    after: str | None


def parse(query: Mapping[str, str]) -> Page:
    """The query of a list. Raises `ApiError`."""
    for name in query:
        if name not in ("limit", "order", "after"):
            raise invalid(f"'{name}' is not supported here. Leave it out.", name, "unsupported_parameter")
    limit = query.get("limit", str(_PAGE))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= _MAX_PAGE):
        raise invalid(f"'limit' must be a whole number from 1 to {_MAX_PAGE}.", "limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("'order' must be asc or desc.", "order")
    return Page(int(limit), order == "desc", query.get("after") or None)

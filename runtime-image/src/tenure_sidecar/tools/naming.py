"""The names under which a model knows the functions of an MCP server."""

import re
from collections import Counter
from collections.abc import Iterable

LONGEST = 64
"""Most characters of a function's name in the OpenAI API."""


def function_name(tool: str, name: str) -> str:
    """`<tool>__<name>`, with what no function name may hold replaced, cut to the longest that there is."""
    return f"{tool}__{re.sub('[^A-Za-z0-9_-]', '_', name)}"[:LONGEST]


def named(tool: str, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Names of functions, by the tool's own names for them; and those of its names that cannot be told apart.

    All that clash are left out: which of them a name means must not depend on their order.
    """
    wanted = {name: function_name(tool, name) for name in names}
    count = Counter(wanted.values())
    clear = {name: function for name, function in wanted.items() if count[function] == 1}
    return clear, [name for name in wanted if name not in clear]

"""Names of objects as people write them."""

import re
import secrets
from collections.abc import Callable
from typing import NamedTuple

from tenure_api.names import MAX_NAME
from tenure_cli.errors import CliError

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_SUFFIX = 6


class Key(NamedTuple):
    """An object: its namespace and its name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse(text: str, namespace: Callable[[], str]) -> Key:
    """The object meant by `name` or `namespace/name`; `namespace` tells which one is meant by the former.

    Raises `CliError` if no object can have this name, so that none leads elsewhere in the path of an API.
    """
    before, slash, after = text.partition("/")
    for part in (before, after) if slash else (text,):
        if not _LABEL.fullmatch(part):
            raise CliError(f"'{text}' is no name: write NAME or NAMESPACE/NAME, in lower-case letters, digits and '-'.")
    return Key(before, after) if slash else Key(namespace(), text)


def new_name(stem: str) -> str:
    """A name that nothing has yet, which begins with the stem."""
    suffix = "".join(secrets.choice(_LETTERS) for _ in range(_SUFFIX))
    return f"{stem[: MAX_NAME - _SUFFIX - 1].rstrip('-')}-{suffix}"

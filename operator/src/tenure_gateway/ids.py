"""Names of agents, sessions and turns, as clients see them. Pure; every id says where it belongs, so nothing is stored.

| what         | id                                                                                   |
|--------------|--------------------------------------------------------------------------------------|
| model        | `namespace/agent`                                                                    |
| conversation | `conv_` + hexadecimal UTF-8 of `namespace/session`; plain `namespace/session` is read too |
| response     | `resp_` + the same hexadecimal + `_` + turn id                                       |
| completion   | `chatcmpl-` + turn id                                                                |
| approval     | `mcpr_` + turn id + `_` + step                                                       |
| container    | `cntr_` + hexadecimal UTF-8 of `namespace/session`                                   |
| file         | `cfile_` + hexadecimal UTF-8 of its path in the workspace                            |

Ids come from callers: a part that is not a valid Kubernetes name makes the whole id unknown, so that no id can ever
point elsewhere in an API path.
"""

import base64
import hashlib
import re
import secrets
from typing import NamedTuple

from tenure_api.names import MAX_NAME
from tenure_api.wire import TURN_ID

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_TURN = re.compile(TURN_ID)
_APPROVAL = re.compile(r"mcpr_([0-9a-f]{32})_[0-9]{1,9}")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_RANDOM_CHARACTERS = 10
"""50 random bits: a clash within one agent is unlikely and harmless, as the API server refuses the second."""


class Key(NamedTuple):
    """An object: its namespace and its name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_key(text: str) -> Key | None:
    """The object named by `namespace/name`; None if no object can have this name."""
    namespace, slash, name = text.partition("/")
    if not slash or not _LABEL.fullmatch(namespace) or not _LABEL.fullmatch(name) or len(name) > MAX_NAME:
        return None
    return Key(namespace, name)


def conversation_id(session: Key) -> str:
    """The conversation of a session."""
    return f"conv_{str(session).encode().hex()}"


def parse_conversation(text: str) -> Key | None:
    """The session of a conversation; None if no session can have this id."""
    return _unhex(text[5:]) if text.startswith("conv_") else parse_key(text)


def response_id(session: Key, turn: str) -> str:
    """The response that a turn gave."""
    return f"resp_{str(session).encode().hex()}_{turn}"


def parse_response(text: str) -> tuple[Key, str] | None:
    """Session and turn of a response; None if no response can have this id."""
    prefix, _, rest = text.partition("_")
    encoded, _, turn = rest.partition("_")
    session = _unhex(encoded)
    if prefix != "resp" or session is None or not _TURN.fullmatch(turn):
        return None
    return session, turn


def turn_of_approval(text: str) -> str | None:
    """The turn whose call is to be approved; None if no approval can have this id."""
    found = _APPROVAL.fullmatch(text)
    return None if found is None else found[1]


def container_id(session: Key) -> str:
    """The workspace of a session, as a container."""
    return f"cntr_{str(session).encode().hex()}"


def parse_container(text: str) -> Key | None:
    """The session of a container; None if no container can have this id."""
    return _unhex(text[5:]) if text.startswith("cntr_") else None


def file_id(path: str) -> str:
    """A file of a workspace."""
    return f"cfile_{path.encode(errors='surrogateescape').hex()}"


def parse_file(text: str) -> str | None:
    """The path of a file; None if no file can have this id."""
    try:
        path = bytes.fromhex(text.removeprefix("cfile_")).decode()
    except ValueError:
        return None
    return path if is_path(path) and file_id(path) == text else None


def is_path(path: str) -> bool:
    """Whether this can be the path of a file, relative to the workspace: nothing in it leads elsewhere."""
    return "\0" not in path and all(name not in ("", ".", "..") for name in path.split("/"))


class Repeatable(NamedTuple):
    """The names under which the request with an Idempotency-Key finds again what it made the first time."""

    turn: str
    session: str


def repeatable(caller: str, key: str) -> Repeatable:
    """The names that belong to a caller's Idempotency-Key."""
    digest = hashlib.sha256(f"{len(caller.encode())}:{caller}{key}".encode()).digest()
    return Repeatable(digest[:16].hex(), f"request-{base64.b32encode(digest[16:]).decode().lower().rstrip('=')[:24]}")


def _unhex(encoded: str) -> Key | None:
    try:
        text = bytes.fromhex(encoded).decode("ascii")
    except ValueError:
        return None
    key = parse_key(text)
    # One object has one id: fromhex also reads upper case and spaces.
    return key if key is not None and text.encode().hex() == encoded else None


def new_turn() -> str:
    """A new turn id."""
    return secrets.token_hex(16)


def new_session_name(agent: str) -> str:
    """A name for a new session of this agent."""
    stem = agent[: MAX_NAME - _RANDOM_CHARACTERS - 1].rstrip("-")
    return f"{stem}-{''.join(secrets.choice(_BASE32) for _ in range(_RANDOM_CHARACTERS))}"

"""Records as lines of `records.jsonl`."""

import base64
import binascii
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from tenure_api.bundle import InvalidBundleError
from tenure_api.wire import TURN_ID
from tenure_sidecar import codec
from tenure_sidecar.bundle.envelope import OVERHEAD, Envelope
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal import records
from tenure_sidecar.journal.sealing import Head

KINDS: dict[str, type[records.Entry]] = {
    entry.kind: entry
    for entry in (
        records.TurnStart,
        records.TurnRun,
        records.TurnSuspended,
        records.TurnResumed,
        records.ModelIntent,
        records.ModelResult,
        records.ToolIntent,
        records.ApprovalAsked,
        records.ApprovalDecided,
        records.WaitBegun,
        records.ToolResult,
        records.TurnEnd,
    )
}
"""The records of turns. Those of no turn are the sidecar's own and are in no bundle."""
_TURN = re.compile(TURN_ID)
_LARGEST = 2**53 - 1
"""The largest number that every reader of JSON knows."""
_LATEST = 253_402_300_799_000_000
"""The last moment that a datetime can hold, in microseconds."""


def line(head: Head, payload: bytes, envelope: Envelope | None) -> bytes:
    """The line of a record, whose payload is JSON of one line."""
    if envelope is None:
        return b'%s,"payload":%s}\n' % (_opening(head), payload)
    return b'%s,"sealed":"%s"}\n' % (_opening(head), base64.b64encode(envelope.seal_payload(head, payload)))


def length(head: Head, payload: int, sealed: bool) -> int:
    """How long that line is if the payload is this long."""
    if not sealed:
        return len(_opening(head)) + len(',"payload":}\n') + payload
    return len(_opening(head)) + len(',"sealed":""}\n') + 4 * -(-(payload + OVERHEAD) // 3)


def parse(text: bytes, envelope: Envelope | None) -> tuple[Head, bytes]:
    """The record in a line. Raises `InvalidBundleError`, or `RefusedError` if it does not open with the key."""
    try:
        value = codec.decode(text)
        head = Head(*(value[name] for name in Head._fields))
        payload = _payload(value, head, envelope)
    except (ValueError, KeyError, TypeError):
        raise InvalidBundleError("the bundle has a record that cannot be read") from None
    if not (
        all(isinstance(number, int) for number in (head.sequence, head.step, head.at))
        and all(isinstance(name, str) for name in (head.turn, head.kind))
        and 0 < head.sequence <= _LARGEST
        and 0 <= head.step <= _LARGEST
        and 0 <= head.at <= _LATEST
        and _TURN.fullmatch(head.turn)
    ):
        raise InvalidBundleError("the bundle has a record that is none of a turn")
    if head.kind not in KINDS:
        raise InvalidBundleError(f"the bundle has a record of the unknown kind {head.kind[:100]!r}")
    try:
        KINDS[head.kind].model_validate_json(payload)
    except ValidationError:
        raise InvalidBundleError(f"record {head.sequence} of the bundle does not say what a {head.kind} says") from None
    return head, payload


def wrong_seal(sealed: bool) -> RefusedError:
    """No key was given for what is sealed, or one for what is not."""
    if sealed:
        message = "the bundle is sealed: send the key that it was exported with"
        return RefusedError(400, "bundle_key_missing", message)
    return RefusedError(400, "bundle_key_refused", "the bundle is not sealed: leave the key out")


def _opening(head: Head) -> bytes:
    return to_json(head._asdict())[:-1]


def _payload(value: dict[str, Any], head: Head, envelope: Envelope | None) -> bytes:
    if ("sealed" in value) != (envelope is not None):
        raise wrong_seal("sealed" in value)
    if envelope is None:
        if not isinstance(value["payload"], dict):
            raise TypeError
        return codec.encode(value["payload"])
    try:
        return envelope.open_payload(head, base64.b64decode(value["sealed"], validate=True))
    except binascii.Error:
        raise InvalidBundleError("the bundle has a record that cannot be read") from None

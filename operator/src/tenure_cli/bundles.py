"""`export`, `import` and `verify`: sessions as files."""

import argparse
import base64
import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tenure_api.bundle import KEY_BYTES, Payloads, parse_key
from tenure_api.names import MAX_NAME
from tenure_cli.console import Console, Progress, size
from tenure_cli.errors import AlreadyExistsError, CliError, NotFoundError, NotNowError
from tenure_cli.inspection import Checked, check, trusted_keys
from tenure_cli.names import Key
from tenure_cli.reach import Reach

_STEP = 262_144


def export(reach: Reach, options: argparse.Namespace) -> None:
    """`export SESSION -o FILE`. The file has its name only once all of it is on disk, and checked."""
    session = reach.key(options.session)
    path = Path(options.out)
    key_path = None if options.plain else _key_path(path)
    for there in (path, key_path):
        if there is not None and there.exists() and not options.force:
            raise AlreadyExistsError(f"{there} is there already: give another name, or --force to replace it.")
    key = None if options.plain else base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    gateway = reach.gateway
    with _disk(path), _replacing(path) as (file, temporary):
        with (
            gateway.export(session, key, options.at) as (length, parts),
            _progress(reach.console, "exported", length) as progress,
        ):
            for part in parts:
                file.write(part)
                progress.add(len(part))
        file.flush()
        os.fsync(file.fileno())
        checked = _checked(reach.console, temporary)
        _as_asked(checked, session, sealed=key is not None)
        if key_path is not None and key is not None:
            # Before the bundle: a key without a bundle is of no harm, a bundle without its key of no use.
            with _replacing(key_path) as (key_file, _):
                key_file.write(f"{key}\n".encode())
                key_file.flush()
                os.fsync(key_file.fileno())
    document = {"file": str(path), "key": None if key_path is None else str(key_path), **checked.document()}
    text = f"Session {session} is in {path} ({size(checked.size)}, {_content(checked)})."
    text += f" Its key is in {key_path}: keep it apart from it." if key_path is not None else " It is not sealed."
    reach.console.result(document, text)


def import_(reach: Reach, options: argparse.Namespace) -> None:
    """`import FILE --agent AGENT`."""
    agent = reach.key(options.agent)
    path = Path(options.file)
    checked = _checked(reach.console, path)
    name = options.name or checked.manifest.session.partition("/")[2]
    session = reach.key(name if "/" in name else f"{agent.namespace}/{name}")
    if session.namespace != agent.namespace:
        raise CliError(f"The session would be in {session.namespace}, but its agent is in {agent.namespace}.")
    if len(session.name) > MAX_NAME:
        raise CliError(f"The name of a session has at most {MAX_NAME} characters: give another one with --name.")
    key = _key(path, options.key) if checked.manifest.payloads is Payloads.SEALED else None
    with _disk(path), path.open("rb") as file, _progress(reach.console, "imported", checked.size) as progress:
        reach.gateway.import_(session, agent.name, key, _parts(file, progress), checked.size)
    document = {"session": str(session), "agent": str(agent), "digest": checked.digest}
    text = f"Session {session} begins with what {checked.manifest.session} held ({_content(checked)})."
    reach.console.result(document, f"{text} To go on in it: kubectl tenure chat {agent} --session {session}")


def verify(reach: Reach, options: argparse.Namespace) -> None:
    """`verify FILE`."""
    path = Path(options.file)
    checked = _checked(reach.console, path, trusted_keys(options.public_key))
    sealed = "sealed" if checked.manifest.payloads is Payloads.SEALED else "not sealed"
    signed = f"signed with the key {checked.signer}" if checked.signer else "not signed"
    text = (
        f"{path} is whole and unchanged: {checked.manifest.session} with {_content(checked)}, up to record "
        f"{checked.manifest.sequence}, taken {checked.manifest.created:%Y-%m-%d %H:%M} UTC, {sealed}, {signed}."
    )
    reach.console.result({"file": str(path), **checked.document()}, text)


def _checked(console: Console, path: Path, trusted: frozenset[str] | None = None) -> Checked:
    total = path.stat().st_size if path.exists() else None
    with _progress(console, "checked", total) as progress:
        return check(path, trusted, progress.add)


def _as_asked(checked: Checked, session: Key, sealed: bool) -> None:
    if checked.manifest.session != str(session):
        raise CliError(f"The gateway sent the session {checked.manifest.session} instead of {session}.")
    if (checked.manifest.payloads is Payloads.SEALED) is not sealed:
        raise CliError(f"The gateway sent a bundle that is {'not ' if sealed else ''}sealed.")
    if checked.signer is None:
        raise CliError("The gateway sent a bundle that is not signed: no gateway would take it back.")


def _content(checked: Checked) -> str:
    count = checked.manifest.turns
    return f"{count} turn{'' if count == 1 else 's'}"


def _key_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.key")


def _key(path: Path, given: str | None) -> str:
    where = Path(given) if given else _key_path(path)
    try:
        text = where.read_text().strip()
        parse_key(text)
    except FileNotFoundError:
        raise NotFoundError(
            f"The bundle is sealed, and there is no {where} with its key: say where with --key."
        ) from None
    except (OSError, ValueError):
        text = ""
    if not text:
        raise CliError(f"{where} does not hold the key of a bundle: {KEY_BYTES} bytes in base64.")
    return text


def _parts(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    while data := file.read(_STEP):
        yield data
        progress.add(len(data))


@contextmanager
def _progress(console: Console, what: str, total: int | None) -> Iterator[Progress]:
    progress = Progress(console, what, total)
    try:
        yield progress
    finally:
        progress.end()


@contextmanager
def _replacing(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file that only its owner reads, and that gets its name when it is complete; if it fails, nothing is left."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file, temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.strerror is None:
            raise
        kind = NotFoundError if isinstance(error, FileNotFoundError) else NotNowError
        raise kind(f"{error.filename or path}: {error.strerror}.") from None

"""`export`, `import` and `verify`, with a gateway that is a stand-in."""

import base64
import gzip
import json
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tenure_api import bundle
from tenure_api.bundle import Manifest, Payloads
from unit.cli.desk import Desk
from unit.cli.servers import Answer, Request, Server, serving

PRIVATE = Ed25519PrivateKey.generate()
PATH = "/v1/tenure/sessions/shop/chat-1/bundle"


def pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def made(sealed: bool = True, session: str = "shop/chat-1", signed: bool = True, file: bytes = b"id,total\n") -> bytes:
    """A bundle with one record and one file."""
    contents = {bundle.RECORDS: b'{"sequence": 1}\n', f"{bundle.WORKSPACE}orders.csv": file}
    members = [{"name": name, "size": len(data), "sha256": bundle.sha256(data)} for name, data in contents.items()]
    manifest = Manifest(
        session=session,
        agent="shop/helper",
        subject="kate",
        sequence=9,
        records=1,
        turns=2,
        created=datetime(2026, 11, 24, tzinfo=UTC),
        payloads=Payloads.SEALED if sealed else Payloads.PLAIN,
    )
    contents[bundle.MANIFEST] = bundle.manifest_bytes(manifest, members)
    tar = b"".join(bundle.member(name, len(data)) + data + bundle.padding(len(data)) for name, data in contents.items())
    if not signed:
        return gzip.compress(tar + bundle.end(), mtime=0)
    body = gzip.compress(tar, mtime=0)
    return body + bundle.sign(pem(PRIVATE), bundle.sha256(contents[bundle.MANIFEST]), bundle.sha256(body))


def changed(data: bytes, at: int) -> bytes:
    """The data with one bit turned."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def desk(server: Server) -> Desk:
    return Desk(common=("--gateway", server.url, "--token", "secret"))


def sends(data: bytes, cut: int | None = None) -> Callable[[Request], Answer]:
    return lambda request: Answer(200, data, cut)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestExport:
    def test_it_is_sealed_with_a_new_key_that_only_its_owner_reads(
        self, server: Server, desk: Desk, tmp_path: Path
    ) -> None:
        server.answer = sends(made())
        outcome = desk.run("export", "chat-1", "-o", str(tmp_path / "chat.bundle"))
        assert outcome.code == 0, outcome.err
        assert left(tmp_path) == ["chat.bundle", "chat.bundle.key"]
        assert (tmp_path / "chat.bundle").read_bytes() == made()
        (request,) = server.requests
        assert (request.method, request.path, request.headers["authorization"]) == ("GET", PATH, "Bearer secret")
        key = request.headers[bundle.KEY_HEADER.lower()]
        assert len(base64.b64decode(key)) == 32
        assert (tmp_path / "chat.bundle.key").read_text().strip() == key
        for name in left(tmp_path):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert key not in outcome.out + outcome.err

    def test_each_has_a_key_of_its_own(self, server: Server, desk: Desk, tmp_path: Path) -> None:
        server.answer = sends(made())
        for name in ("a", "b"):
            desk.run("export", "chat-1", "-o", str(tmp_path / name))
        assert (tmp_path / "a.key").read_text() != (tmp_path / "b.key").read_text()

    def test_a_plain_one_has_no_key(self, server: Server, desk: Desk, tmp_path: Path) -> None:
        server.answer = sends(made(sealed=False))
        outcome = desk.run("export", "chat-1", "-o", str(tmp_path / "plain"), "--plain", "--output", "json")
        assert left(tmp_path) == ["plain"]
        assert bundle.KEY_HEADER.lower() not in server.requests[0].headers
        told = outcome.json
        assert (told["session"], told["turns"], told["payloads"], told["key"]) == ("shop/chat-1", 2, "Plain", None)
        assert told["digest"] == bundle.digest_name(bundle.sha256((tmp_path / "plain").read_bytes()))

    def test_it_can_end_with_an_earlier_record(self, server: Server, desk: Desk, tmp_path: Path) -> None:
        server.answer = sends(made())
        assert desk.run("export", "chat-1", "-o", str(tmp_path / "chat"), "--at", "7").code == 0
        assert server.requests[0].path == f"{PATH}?at=7"

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (sends(made()[:-40]), "cut off"),
            (sends(changed(made(), 90)), "not a bundle that can be used"),
            (sends(made(sealed=False)), "not sealed"),
            (sends(made(session="shop/other")), "shop/other instead of shop/chat-1"),
            (sends(made(signed=False)), "not signed"),
            (sends(b"<html>"), "not a bundle"),
        ],
    )
    def test_what_is_not_the_whole_bundle_that_was_asked_for_gets_no_name(
        self, server: Server, desk: Desk, tmp_path: Path, answer: Callable[[Request], Answer], said: str
    ) -> None:
        server.answer = answer
        outcome = desk.run("export", "chat-1", "-o", str(tmp_path / "chat"))
        assert (outcome.code, outcome.out) == (1, "")
        assert said in outcome.err
        assert left(tmp_path) == []

    def test_a_connection_that_breaks_leaves_nothing_and_is_worth_another_try(
        self, server: Server, desk: Desk, tmp_path: Path
    ) -> None:
        server.answer = sends(made(), cut=600)
        assert desk.run("export", "chat-1", "-o", str(tmp_path / "chat")).code == 5
        assert left(tmp_path) == []

    def test_a_file_that_is_there_is_kept_unless_asked_otherwise(
        self, server: Server, desk: Desk, tmp_path: Path
    ) -> None:
        server.answer = sends(made())
        (tmp_path / "chat.key").write_text("precious")
        outcome = desk.run("export", "chat-1", "-o", str(tmp_path / "chat"))
        assert (outcome.code, server.requests) == (1, [])
        assert "--force" in outcome.err
        assert desk.run("export", "chat-1", "-o", str(tmp_path / "chat"), "--force").code == 0
        assert (tmp_path / "chat.key").read_text() != "precious"

    def test_a_folder_that_is_not_there_is_said_so(self, server: Server, desk: Desk, tmp_path: Path) -> None:
        outcome = desk.run("export", "chat-1", "-o", str(tmp_path / "absent" / "chat"))
        assert (outcome.code, server.requests) == (3, [])
        assert "No such file" in outcome.err

    @pytest.mark.parametrize(
        ("status", "code", "exit_code"),
        [(403, "forbidden", 4), (404, "conversation_not_found", 3), (503, "session_not_ready", 5), (409, "busy", 1)],
    )
    def test_a_refusal_is_told_as_the_gateway_says_it(
        self, server: Server, desk: Desk, tmp_path: Path, status: int, code: str, exit_code: int
    ) -> None:
        server.answer = lambda request: Answer.json({"error": {"code": code, "message": "You may not."}}, status)
        outcome = desk.run("export", "chat-1", "-o", str(tmp_path / "chat"))
        assert outcome.code == exit_code
        assert "You may not." in outcome.err
        assert left(tmp_path) == []


class TestImport:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "chat.bundle"
        path.write_bytes(made())
        path.with_name("chat.bundle.key").write_text(base64.b64encode(b"k" * 32).decode() + "\n")
        return path

    def test_it_sends_the_whole_file_with_its_key(self, server: Server, desk: Desk, file: Path) -> None:
        outcome = desk.run("import", str(file), "--agent", "lab/tester")
        assert outcome.code == 0, outcome.err
        (request,) = server.requests
        assert (request.method, request.body) == ("POST", made())
        assert request.path == "/v1/tenure/sessions/lab/chat-1/bundle?agent=tester"
        assert base64.b64decode(request.headers[bundle.KEY_HEADER.lower()]) == b"k" * 32
        assert "kubectl tenure chat lab/tester --session lab/chat-1" in outcome.out

    def test_it_gets_the_name_that_is_given(self, server: Server, desk: Desk, file: Path) -> None:
        outcome = desk.run("import", str(file), "--agent", "tester", "--name", "again", "--output", "json")
        assert outcome.json["session"] == "shop/again"
        assert "/shop/again/" in server.requests[0].path

    def test_a_plain_one_needs_no_key(self, server: Server, desk: Desk, tmp_path: Path) -> None:
        (tmp_path / "plain").write_bytes(made(sealed=False))
        assert desk.run("import", str(tmp_path / "plain"), "--agent", "tester").code == 0
        assert bundle.KEY_HEADER.lower() not in server.requests[0].headers

    def test_a_key_that_is_missing_or_none_is_said_before_anything_is_sent(
        self, server: Server, desk: Desk, file: Path
    ) -> None:
        outcome = desk.run("import", str(file), "--agent", "tester", "--key", str(file.parent / "other"))
        assert (outcome.code, "--key" in outcome.err) == (3, True)
        file.with_name("chat.bundle.key").write_text("too short")
        outcome = desk.run("import", str(file), "--agent", "tester")
        assert outcome.code == 1
        assert "too short" not in outcome.err
        assert server.requests == []

    def test_a_damaged_file_is_not_sent(self, server: Server, desk: Desk, file: Path) -> None:
        file.write_bytes(made()[:-1])
        assert desk.run("import", str(file), "--agent", "tester").code == 1
        assert server.requests == []

    def test_a_file_that_is_not_there_is_not_found(self, desk: Desk, tmp_path: Path) -> None:
        assert desk.run("import", str(tmp_path / "absent"), "--agent", "tester").code == 3

    def test_a_refusal_is_told(self, server: Server, desk: Desk, file: Path) -> None:
        taken = {"error": {"code": "session_exists", "message": "There is a session of this name."}}
        server.answer = lambda request: Answer.json(taken, 409)
        outcome = desk.run("import", str(file), "--agent", "tester")
        assert (outcome.code, "There is a session" in outcome.err) == (1, True)

    @pytest.mark.parametrize("name", ["office/chat-1", "x" * 53])
    def test_a_name_that_cannot_be_is_refused_before_anything_is_sent(
        self, server: Server, desk: Desk, file: Path, name: str
    ) -> None:
        assert desk.run("import", str(file), "--agent", "tester", "--name", name).code == 1
        assert server.requests == []


class TestVerify:
    def test_it_says_what_is_in_it_and_who_signed_it(self, tmp_path: Path) -> None:
        (tmp_path / "chat").write_bytes(made())
        text = Desk().run("verify", str(tmp_path / "chat")).out
        for said in ("whole and unchanged", "shop/chat-1 with 2 turns", "up to record 9", "sealed", "the key sha256:"):
            assert said in text
        told = Desk().run("verify", str(tmp_path / "chat"), "--output", "json").json
        assert told["signedBy"].startswith("sha256:")
        assert "kate" not in json.dumps(told)

    def test_one_that_is_not_signed_is_said_so(self, tmp_path: Path) -> None:
        (tmp_path / "chat").write_bytes(made(signed=False))
        assert "not signed" in Desk().run("verify", str(tmp_path / "chat")).out

    def test_it_can_be_held_against_a_key(self, tmp_path: Path) -> None:
        (tmp_path / "chat").write_bytes(made())
        (tmp_path / "right.pem").write_text(public_pem(PRIVATE))
        (tmp_path / "wrong.pem").write_text(public_pem(Ed25519PrivateKey.generate()))
        (tmp_path / "none.pem").write_text("nothing")
        codes = [
            Desk().run("verify", str(tmp_path / "chat"), "--public-key", str(tmp_path / f"{name}.pem")).code
            for name in ("right", "wrong", "none", "absent")
        ]
        assert codes == [0, 1, 1, 3]

    def test_every_bit_counts(self, tmp_path: Path) -> None:
        whole = made(file=b"x")
        for at in range(0, len(whole), 7):
            (tmp_path / "chat").write_bytes(changed(whole, at))
            assert Desk().run("verify", str(tmp_path / "chat")).code == 1, at

    def test_a_folder_is_no_bundle(self, tmp_path: Path) -> None:
        assert Desk().run("verify", str(tmp_path)).code == 1

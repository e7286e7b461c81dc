"""What `docs/bundle.md` says of bundles is so."""

import base64
import gzip
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from harness.documents import blocks
from harness.tenure import ROOT
from tenure_api import bundle
from tenure_api.bundle import Manifest, Signature
from tenure_api.tokens import new_private_key
from tenure_sidecar.bundle.lines import KINDS
from unit.sidecar.bundle.histories import KEY, a_bundle

PAGE = (ROOT / "docs" / "bundle.md").read_text()


def read(path: Path) -> subprocess.CompletedProcess[str]:
    (program,) = blocks(PAGE, "python")
    return subprocess.run([sys.executable, "-", path], input=program, capture_output=True, text=True)


async def test_the_program_on_the_page_reads_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "a.bundle"
    path.write_bytes(await a_bundle(tmp_path / "a", turns=2, signer=new_private_key()))
    done = read(path)
    assert done.stderr == ""
    assert [line.split(" … ")[0] for line in done.stdout.split("\n")] == [
        *("question 0", "answer 0", "question 1", "answer 1", "")
    ]
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    assert read(path).returncode != 0


async def test_the_page_names_all_that_a_bundle_has(tmp_path: Path) -> None:
    named = {name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    models = [field.alias or name for model in (Manifest, Signature) for name, field in model.model_fields.items()]
    assert set(models) <= named
    assert {"sequence", "turn", "step", "kind", "at", "payload", "sealed", "members"} <= named
    assert set(re.findall(r"`([a-z]+\.[a-z]+)`", PAGE)) & set(KINDS) == set(KINDS)
    assert f"{bundle.MOST_FILES:,} files" in PAGE
    assert f"{bundle.LONGEST_LINE >> 20} MiB for each record, {bundle.LARGEST >> 30} GiB unpacked" in PAGE
    assert bundle.KEY_HEADER in PAGE
    assert bundle._STORED[:-1].hex() in PAGE


async def test_a_sealed_bundle_is_opened_as_the_page_says(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(await a_bundle(tmp_path / "a", key=KEY)))) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    record = json.loads(held["records.jsonl"].split(b"\n")[0])
    sealed = base64.b64decode(record["sealed"])
    place = "\0".join(str(record[name]) for name in ("sequence", "turn", "step", "kind", "at"))
    payload = AESGCM(KEY).decrypt(sealed[:12], sealed[12:], f"tenure-bundle/1\0record\0{place}".encode())
    assert json.loads(payload)["agent"] == "bot"
    file = held["workspace/a.txt"]
    opened = AESGCM(KEY).decrypt(file[:12], file[12:], b"tenure-bundle/1\0file\0a.txt")
    assert opened == (tmp_path / "a/workspace/a.txt").read_bytes()

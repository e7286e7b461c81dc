"""Rules of the house that no other tool checks."""

import re
import subprocess
from pathlib import Path

from tenure_gateway.openai import errors

ROOT = Path(__file__).parents[2]


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks."""
    listing = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).exists()]


def test_the_operator_folder_never_shadows_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_python_file_outgrows_its_room() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in tracked("*.py")}
    assert {path: size for path, size in sizes.items() if size > 420} == {}


def test_documents_point_only_to_what_exists() -> None:
    missing = set()
    for page in tracked("*.md"):
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            if not (page.parent / target).exists():
                missing.add(f"{page.name}: {target}")
        for path in re.findall(r"`((?:tests|operator|runtime-image|charts|docs|examples)/[\w./-]+)`", text):
            if not (ROOT / path).exists():
                missing.add(f"{page.name}: {path}")
    assert missing == set()


def test_nothing_names_a_machine_or_a_registry_host() -> None:
    pattern = r"https?://[\w.-]*(pythonhosted|pypi|npmjs|debian|golang)[\w.-]*/|[\s\"'=:](/root|/home/[a-z]+)/"
    hits = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.name != Path(__file__).name and re.search(pattern, path.read_bytes().decode(errors="ignore"))
    ]
    assert hits == []


def test_every_stand_in_says_that_it_is_one() -> None:
    for package in (ROOT / "tests" / "doubles").iterdir():
        pages = list(package.glob("*.py"))
        assert not pages or any("stand-in" in page.read_text() for page in pages), package


def test_the_errors_in_the_documents_are_those_of_the_code() -> None:
    table = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("|")]
    assert len(table) > 10
    assert "\n".join(table) in (ROOT / "docs" / "openai-api.md").read_text()

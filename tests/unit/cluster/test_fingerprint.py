"""What makes an image stale, and what does not."""

from pathlib import Path

import pytest

from cluster.fingerprint import context_files, copied_sources, fingerprint

DOCKERFILE = """\
ARG BASE_IMAGE=python:3.13-slim
FROM ${BASE_IMAGE} AS builder
COPY requirements.txt /tmp/
COPY --chown=1:1 --chmod=755 \\
     src *.cfg /app/
FROM ${BASE_IMAGE}
COPY --from=builder /wheels /wheels
COPY ["a b.txt", "/x"]
RUN --mount=type=cache,target=/cache --mount=type=bind,source=extra,target=/extra make
"""


def test_the_sources_of_every_copy_are_found() -> None:
    assert copied_sources(DOCKERFILE) == ["requirements.txt", "src", "*.cfg", "a b.txt", "extra"]


def test_what_cannot_be_told_means_the_whole_context() -> None:
    assert copied_sources("FROM x\nCOPY ${WHERE} /app\n") == ["."]
    assert copied_sources("FROM x\nRUN --mount=target=/src make\n") == ["."]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "src" / "__pycache__").mkdir(parents=True)
    (tmp_path / "src" / "main.py").write_text("1")
    (tmp_path / "src" / "__pycache__" / "main.pyc").write_text("compiled")
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY src/ /app/\n")
    return tmp_path


def mark(context: Path, **settings: str) -> str:
    return fingerprint(context, context / "Dockerfile", settings)


def test_only_what_is_copied_counts(context: Path) -> None:
    assert context_files(context, ["src/"]) == [context / "src" / "main.py"]
    before = mark(context)
    (context / "notes.md").write_text("other notes")
    (context / "src" / "__pycache__" / "main.pyc").write_text("compiled again")
    assert mark(context) == before


@pytest.mark.parametrize("path", ["src/main.py", "Dockerfile", ".dockerignore", "src/new.py"])
def test_a_change_of_an_input_counts(context: Path, path: str) -> None:
    before = mark(context)
    (context / path).write_text("FROM x\nCOPY src /app\n# changed")
    assert mark(context) != before


def test_modes_and_settings_count(context: Path) -> None:
    before = mark(context, base="1")
    assert mark(context, base="2") != before
    (context / "src" / "main.py").chmod(0o755)
    assert mark(context, base="1") != before

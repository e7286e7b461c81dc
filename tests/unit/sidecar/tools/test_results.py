"""What the model is shown of a result."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_sidecar.tools.results import result_path, shown
from tenure_sidecar.workspace.files import Files, FullError

TURN = "0123456789abcdef" * 2


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, os.getgid())


def test_a_result_that_fits_is_shown_whole_and_kept_nowhere(files: Files, tmp_path: Path) -> None:
    assert shown(files, "é" * 128, TURN, 3, 256) == "é" * 128
    assert os.listdir(tmp_path) == []


def test_of_a_longer_one_the_head_is_shown_and_the_whole_is_kept(files: Files, tmp_path: Path) -> None:
    text = "é" * 200
    told = shown(files, text, TURN, 3, 256)
    head, _, note = told.rpartition("\n")
    assert text.startswith(head)
    assert head
    assert f"/workspace/{result_path(TURN, 3)}" in note
    assert "400 bytes" in note
    assert (tmp_path / result_path(TURN, 3)).read_text() == text


def test_the_same_result_gives_the_same_bytes(files: Files, tmp_path: Path) -> None:
    first = shown(files, "x" * 1000, TURN, 1, 300)
    kept = (tmp_path / result_path(TURN, 1)).read_bytes()
    assert shown(files, "x" * 1000, TURN, 1, 300) == first
    assert (tmp_path / result_path(TURN, 1)).read_bytes() == kept


class Full(Files):
    def write(self, path: str, data: bytes) -> None:  # type: ignore[override]
        raise FullError("full")


def test_on_a_full_volume_the_head_is_shown_and_the_loss_is_said(tmp_path: Path) -> None:
    told = shown(Full(tmp_path, os.getgid()), "x" * 1000, TURN, 1, 300)
    assert told.startswith("xxx")
    assert "volume is full" in told
    assert len(told.encode()) == 300


def test_code_that_is_in_the_way_fails_nothing(files: Files, tmp_path: Path) -> None:
    (tmp_path / "tool-results").write_text("a file where the directory should be")
    told = shown(files, "x" * 1000, TURN, 1, 300)
    assert told.startswith("xxx")
    assert "cannot be written" in told


@given(st.text(st.characters(), max_size=600), st.integers(256, 600))
def test_what_is_shown_fits_and_begins_as_the_result_does(text: str, limit: int) -> None:
    full = Full(Path("/nowhere"), 0)
    told = shown(full, text, TURN, 999_999, limit)
    assert len(told.encode()) <= limit
    clean = text.encode(errors="replace").decode()
    assert told == clean or clean.startswith(told.rpartition("\n")[0])

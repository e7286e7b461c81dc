"""The reserve on the volume."""

import os
from pathlib import Path

import pytest

from tenure_sidecar.workspace.ballast import NAME, Ballast

SIZE = 64 * 1024


def test_the_reserve_is_held_given_up_once_and_made_again(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, SIZE)
    assert not ballast.give_up()
    assert ballast.hold()
    about = (tmp_path / NAME).stat()
    assert about.st_size == SIZE
    assert about.st_blocks * 512 >= SIZE
    assert about.st_mode & 0o777 == 0o600
    assert ballast.give_up()
    assert not (tmp_path / NAME).exists()
    assert not ballast.give_up()
    assert ballast.hold()


def test_a_reserve_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, SIZE)
    ballast.hold()
    before = (tmp_path / NAME).stat().st_ino
    assert ballast.hold()
    assert (tmp_path / NAME).stat().st_ino == before


@pytest.mark.parametrize("size", [0, SIZE])
def test_a_reserve_that_holds_no_room_is_made_anew(tmp_path: Path, size: int) -> None:
    with open(tmp_path / NAME, "wb") as file:
        file.truncate(size)
    assert Ballast(tmp_path, SIZE).hold()
    assert (tmp_path / NAME).stat().st_blocks * 512 >= SIZE


def test_a_volume_that_fills_while_the_reserve_is_made_keeps_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert not Ballast(tmp_path, SIZE).hold()
    assert os.listdir(tmp_path) == []


def test_no_reserve_is_made_of_the_last_room(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    assert not Ballast(tmp_path, room.f_bavail * room.f_frsize).hold()
    assert os.listdir(tmp_path) == []

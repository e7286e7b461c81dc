"""Files of the workspace, which hostile code can change at any moment."""

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_sidecar.workspace import files as module
from tenure_sidecar.workspace.files import (
    Files,
    FullError,
    InvalidPathError,
    NoFileError,
    TooLargeError,
    WorkspaceError,
    parts_of,
)

TURN = "0123456789abcdef" * 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "secret").write_text("journal")
    return tmp_path / "workspace"


@pytest.fixture
def files(root: Path) -> Files:
    return Files(root, os.getgid())


def read(files: Files, path: str) -> bytes:
    opened = files.open(path)
    try:
        return b"".join(iter(lambda: opened.read(3), b""))
    finally:
        opened.close()


def paths(files: Files, limit: int = 1000) -> list[str]:
    return [file.path for file in files.listing(limit).data]


def test_what_is_written_can_be_listed_read_and_deleted(files: Files) -> None:
    written = files.write("a/b/c.txt", b"hello")
    assert (written.path, written.size) == ("a/b/c.txt", 5)
    assert read(files, "a/b/c.txt") == b"hello"
    assert files.listing(10).data == [written]
    assert files.stat("a/b/c.txt") == written
    files.delete("a/b/c.txt")
    assert paths(files) == []
    with pytest.raises(NoFileError):
        files.open("a/b/c.txt")


def test_the_group_can_change_what_is_written(files: Files, root: Path) -> None:
    files.write("a/b.txt", b"")
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o2770
    assert stat.S_IMODE((root / "a/b.txt").stat().st_mode) == 0o660


def test_a_write_replaces_the_file_whole(files: Files, root: Path) -> None:
    files.write("a", b"long content")
    opened = files.open("a")
    files.write("a", b"new")
    assert opened.read(100) == b"long content"
    opened.close()
    assert read(files, "a") == b"new"
    assert os.listdir(root) == ["a"]


def test_a_listing_has_the_first_paths_in_order_and_says_if_there_are_more(files: Files) -> None:
    made = ["a-b", "a.txt", "a/b", "a/c/d", "a0", "b"]
    for path in reversed(made):
        files.write(path, b"")
    assert paths(files) == sorted(made)
    assert not files.listing(6).has_more
    for limit in range(6):
        assert paths(files, limit) == sorted(made)[:limit]
        assert files.listing(limit).has_more


def test_a_listing_of_too_many_names_ends(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        files.write(f"d/{number}", b"")
    monkeypatch.setattr(module, "_MOST_ENTRIES", 4)
    listing = files.listing(100)
    assert len(listing.data) == 3
    assert listing.has_more


@pytest.mark.parametrize(
    "path", ["", ".", "..", "a/../b", "/etc/passwd", "a//b", "a/", "a\0b", "x" * 256, "a/" * 40 + "b", "\ud800"]
)
def test_a_path_that_leads_elsewhere_is_refused(files: Files, path: str) -> None:
    for access in (files.open, files.delete, files.stat, lambda path: files.write(path, b"")):
        with pytest.raises(InvalidPathError):
            access(path)


def test_a_path_may_be_as_code_in_the_workspace_sees_it(files: Files) -> None:
    files.write("/workspace/a", b"1")
    assert paths(files) == ["a"]


@given(st.text(max_size=40))
def test_a_path_either_stays_below_the_workspace_or_is_refused(path: str) -> None:
    try:
        names = parts_of(path)
    except InvalidPathError:
        return
    assert names
    assert os.path.normpath("/".join(names)) == "/".join(names)
    assert not os.path.isabs("/".join(names))


def test_no_symbolic_link_is_followed(files: Files, root: Path, tmp_path: Path) -> None:
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "directory").symlink_to(tmp_path)
    for path in ("file", "directory/secret"):
        for access in (files.open, files.delete, files.stat):
            with pytest.raises(NoFileError):
                access(path)
    with pytest.raises(InvalidPathError):
        files.write("directory/secret", b"overwritten")
    assert paths(files) == []
    files.write("file", b"a file in its place")
    assert (tmp_path / "secret").read_text() == "journal"
    assert not (root / "file").is_symlink()


def test_what_is_no_regular_file_is_neither_read_nor_waited_for(files: Files, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "directory").mkdir()
    for path in ("pipe", "directory"):
        for access in (files.open, files.delete):
            with pytest.raises(NoFileError):
                access(path)
    assert paths(files) == []
    with pytest.raises(InvalidPathError):
        files.write("directory", b"")
    with pytest.raises(InvalidPathError):
        files.write("pipe/below", b"")
    assert sorted(os.listdir(root)) == ["directory", "pipe"]


def test_names_and_times_that_cannot_be_told_do_no_harm(files: Files, root: Path) -> None:
    (root / os.fsdecode(b"not-utf8-\xff")).write_text("")
    (root / "old").write_text("")
    os.utime(root / "old", (1 << 62, 1 << 62))
    assert paths(files) == ["old"]


def test_a_tree_deeper_than_any_path_is_listed_to_its_limit(files: Files, root: Path) -> None:
    directory = root
    for _ in range(40):
        directory = directory / "d"
        directory.mkdir()
        (directory / "f").write_text("")
    assert len(paths(files)) == 32
    assert read(files, paths(files)[0]) == b""


def test_a_file_that_is_too_large_is_not_opened(files: Files, root: Path) -> None:
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLargeError):
        files.open("sparse", limit=1 << 20)


def test_no_more_is_read_than_the_file_had_when_it_was_opened(files: Files, root: Path) -> None:
    files.write("a", b"12345")
    opened = files.open("a")
    with open(root / "a", "ab") as file:
        file.write(b"6789")
    assert opened.read(100) + opened.read(100) == b"12345"
    opened.close()


def test_a_full_volume_is_said_and_leaves_nothing_behind(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("a", b"before")

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FullError):
        files.write("a", b"after")
    assert read(files, "a") == b"before"
    assert os.listdir(root) == ["a"]


def test_what_a_crash_left_of_a_write_is_replaced_by_the_next_and_not_listed(files: Files, root: Path) -> None:
    files.write("a", b"1")
    made: list[str] = []
    rename = os.rename

    def crash(source: str, target: str, **where: int) -> None:
        made.append(source)
        raise KeyboardInterrupt

    os.rename = crash  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            files.write("a", b"2")
    finally:
        os.rename = rename
    assert read(files, "a") == b"1"
    assert paths(files) == ["a"]
    files.write("a", b"3")
    assert os.listdir(root) == ["a"]


def test_a_directory_that_turns_into_a_link_and_back_never_leads_out(files: Files, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("outside")
    (root / "d").mkdir()
    (root / "d/f").write_text("inside")
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "d", root / "kept")
            try:
                os.rename(root / "link", root / "d")
            except IsADirectoryError:  # a write has made it anew meanwhile
                shutil.rmtree(root / "d")
                os.rename(root / "link", root / "d")
            os.rename(root / "d", root / "link")
            os.rename(root / "kept", root / "d")

    hostile = threading.Thread(target=swap)
    hostile.start()
    try:
        seen = set()
        for _ in range(300):
            try:
                seen.add(read(files, "d/f"))
                files.write("d/new", b"")
            except WorkspaceError:
                pass
    finally:
        stop.set()
        hostile.join()
    assert seen <= {b"inside"}
    assert os.listdir(outside) == ["f"]


def test_the_results_of_a_turn_are_erased_and_those_of_others_stay(files: Files) -> None:
    other = TURN[::-1]
    for path in (f"tool-results/{TURN}-1.txt", f"tool-results/{TURN}-12.txt", f"tool-results/{other}-1.txt", "mine"):
        files.write(path, b"")
    assert files.erase_turn(TURN) == 2
    assert paths(files) == ["mine", f"tool-results/{other}-1.txt"]
    assert files.erase_turn(TURN) == 0
    assert files.erase_turn("") == 0


def test_erasing_where_code_has_put_something_else_does_nothing(files: Files, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{TURN}-1.txt").write_text("")
    (root / "tool-results").symlink_to(outside)
    assert files.erase_turn(TURN) == 0
    assert os.listdir(outside) == [f"{TURN}-1.txt"]


def test_without_a_workspace_every_access_is_an_error(tmp_path: Path) -> None:
    files = Files(tmp_path / "nowhere", os.getgid())
    for access in (lambda: files.listing(1), lambda: files.open("a"), lambda: files.write("a", b"")):
        with pytest.raises(WorkspaceError):
            access()

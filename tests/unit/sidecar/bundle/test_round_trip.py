"""What a bundle was made of is what comes of it."""

import os
from pathlib import Path

import pytest

from tenure_api.report import Origin
from tenure_api.unpacking import Inspection
from tenure_sidecar.bundle.writer import About, Writer
from tenure_sidecar.errors import BrokenOffError, RefusedError
from tenure_sidecar.journal.records import Begun, TurnEnd
from tenure_sidecar.journal.sealing import Head
from tenure_sidecar.workspace import files as workspace_files
from unit.sidecar.bundle.histories import KEY, Place, bundle_of, take, talk


def inspected(data: bytes) -> Inspection:
    inspection = Inspection()
    for _ in inspection.feed(data):
        pass
    return inspection


@pytest.mark.parametrize("key", [None, KEY])
async def test_records_and_files_come_back_as_they_were(tmp_path: Path, key: bytes | None) -> None:
    source, target = Place(tmp_path / "a"), Place(tmp_path / "b", "two")
    source.fill()
    journal = source.open()
    await talk(journal, source.clock, 6)
    data = await bundle_of(source, journal, key=key)
    await journal.close()
    take(target, data, key)
    assert target.records() == source.records()
    assert target.tree() == source.tree()
    assert (b"question" in data, b"Be brief." in data) == (False, False)


async def test_the_journal_goes_on_after_the_last_record_and_knows_its_origin(tmp_path: Path) -> None:
    source, target = Place(tmp_path / "a"), Place(tmp_path / "b", "two")
    journal = source.open()
    await talk(journal, source.clock, 2)
    older = Origin(session="shop/zero", sequence=7)
    take(target, await bundle_of(source, journal, lineage=[older]))
    last = journal.sequence
    await journal.close()
    restored = target.open()
    assert restored.sequence == last + 1
    (record,) = restored.records((Begun.kind,))
    begun = Begun.model_validate_json(record.payload)
    assert (begun.origin, begun.lineage) == (Origin(session="shop/one", sequence=last), [older])
    target.clock.at = 0.0  # the clock of the other machine is behind
    await talk(restored, target.clock, 1, start=2)
    assert [r.sequence for r in restored.records() if r.turn][-5:] == [*range(last + 2, last + 7)]
    await restored.close()


async def test_a_fork_at_any_record_has_all_turns_that_had_ended_by_then_and_nothing_else(tmp_path: Path) -> None:
    source = Place(tmp_path / "a")
    journal = source.open()
    await talk(journal, source.clock, 40)
    last = journal.sequence
    for at in [*range(0, last + 1, 10), last]:
        target = Place(tmp_path / f"at-{at}", "two")
        take(target, await bundle_of(source, journal, at=at))
        ends = {record.turn for record in journal.records((TurnEnd.kind,)) if record.sequence <= at}
        prefix = [record for record in journal.records() if record.turn in ends]
        assert target.records() == prefix
        assert all(record.sequence <= at for record in prefix)
    with pytest.raises(RefusedError, match=f"its last one is {last}"):
        await bundle_of(source, journal, at=last + 1)
    await journal.close()


async def test_a_turn_that_has_not_ended_is_in_no_bundle(tmp_path: Path) -> None:
    source, target = Place(tmp_path / "a"), Place(tmp_path / "b", "two")
    journal = source.open()
    await talk(journal, source.clock, 3, ended=False)
    take(target, await bundle_of(source, journal))
    await journal.close()
    assert target.records() == source.records()[:10]


async def test_a_bundle_holds_one_moment_while_turns_go_on(tmp_path: Path) -> None:
    source, target = Place(tmp_path / "a"), Place(tmp_path / "b", "two")
    source.fill()
    journal = source.open()
    await talk(journal, source.clock, 600)
    before = [record for record in journal.records() if record.turn]
    writer = Writer(journal, source.files, About("shop/one", "bot", "", []), None)
    await writer.plan(None)
    parts = []
    async for part in writer.parts(signed_elsewhere=False):
        parts.append(part)
        await talk(journal, source.clock, 1, start=600 + len(parts))
    await journal.close()
    assert len(parts) > 5
    take(target, b"".join(parts))
    assert target.records() == before


async def test_what_retention_deletes_meanwhile_does_not_come_back_with_a_bundle(tmp_path: Path) -> None:
    source = Place(tmp_path / "a")
    journal = source.open()
    await talk(journal, source.clock, 3)
    writer = Writer(journal, source.files, About("shop/one", "bot", "", []), None)
    await writer.plan(None)
    await journal.erase([next(iter(journal.records((TurnEnd.kind,)))).turn])
    with pytest.raises(BrokenOffError):
        _ = [part async for part in writer.parts(signed_elsewhere=False)]
    await journal.close()


async def test_a_file_that_is_cut_while_it_is_read_breaks_the_bundle_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Place(tmp_path / "a")
    (source.workspace / "log").write_bytes(os.urandom(1_000_000))
    journal = source.open()
    read = workspace_files.Opened.read

    def cutting(opened: workspace_files.Opened, most: int) -> bytes:
        os.truncate(source.workspace / "log", 10)
        return read(opened, most)

    monkeypatch.setattr(workspace_files.Opened, "read", cutting)
    with pytest.raises(BrokenOffError):
        await bundle_of(source, journal)
    await journal.close()


async def test_links_are_left_out_and_counted(tmp_path: Path) -> None:
    source = Place(tmp_path / "a")
    (source.workspace / "a").write_text("a")
    (source.workspace / "link").symlink_to("/etc/passwd")
    (source.workspace / "directory").symlink_to("/etc")
    os.mkfifo(source.workspace / "pipe")
    journal = source.open()
    data = await bundle_of(source, journal)
    await journal.close()
    manifest = inspected(data).finish()
    assert manifest.omitted == 3
    target = Place(tmp_path / "b", "two")
    take(target, data)
    assert set(target.tree()) == {"a"}


async def test_what_concerns_the_session_and_not_its_history_stays_behind(tmp_path: Path) -> None:
    source, target = Place(tmp_path / "a"), Place(tmp_path / "b", "two")
    journal = source.open()
    await talk(journal, source.clock, 1)
    take(target, await bundle_of(source, journal))
    await journal.close()
    restored = target.open()
    assert {record.kind for record in restored.records() if not record.turn} == {Begun.kind}
    await restored.close()


async def test_an_empty_session_has_a_bundle_too(tmp_path: Path) -> None:
    source, target = Place(tmp_path / "a"), Place(tmp_path / "b", "two")
    journal = source.open()
    take(target, await bundle_of(source, journal, key=KEY), KEY)
    await journal.close()
    assert target.records() == []
    restored = target.open()
    (record,) = restored.records()
    assert Head(*record[:5]) == Head(1, "", 0, Begun.kind, 0)
    await restored.close()

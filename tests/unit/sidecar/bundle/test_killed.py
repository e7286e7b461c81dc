"""A kill at any step of taking up a bundle leaves nothing of it or all of it."""

import subprocess
import sys
from pathlib import Path

from tenure_sidecar.bundle.beginning import Beginning
from tenure_sidecar.errors import AwaitingBundleError
from tenure_sidecar.settings import Source
from unit.sidecar.bundle.histories import Place, a_bundle, take

PROGRAM = Path(__file__).with_name("killed_taking.py")


def started(place: Place) -> bool:
    """Whether the session begins, as the next process finds its volume."""
    journal = place.open()
    try:
        Beginning(Source(), place.staging, place.clock).settle(journal)
    except AwaitingBundleError:
        return False
    finally:
        journal.abandon()
    return True


async def test_a_kill_at_any_step_leaves_nothing_or_all(tmp_path: Path) -> None:
    data = await a_bundle(tmp_path / "source")
    (tmp_path / "bundle").write_bytes(data)
    source = Place(tmp_path / "source")
    _kill(tmp_path / "bundle", tmp_path / "killed")
    outcomes = []
    for number in range(1, len(list((tmp_path / "killed").iterdir())) + 1):
        place = Place(tmp_path / "killed" / str(number), "two")
        outcomes.append(started(place))
        if outcomes[-1]:
            assert place.records() == source.records(), number
            assert place.tree() == source.tree(), number
        else:
            assert place.tree() == {"reports": (b"in the way", False)}, number
            assert place.records() == []
            take(place, data)
            assert started(place)
            assert place.records() == source.records()
        assert not place.staging.there
    assert len(outcomes) > 40
    assert outcomes == sorted(outcomes)
    assert outcomes.count(True) > 5


def _kill(bundle: Path, volumes: Path) -> None:
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, PROGRAM, bundle, volumes], check=True, env=environment)

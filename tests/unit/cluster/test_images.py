"""The table of images, and when one is built."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import images
from cluster.engine import Docker, build_arguments
from cluster.images import Image
from cluster.local.dockerd import PrivateEngine
from cluster.shell import ClusterError


class FakeEngine:
    """An engine that has every image it was asked for, and counts the builds."""

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.lost: set[str] = set()

    def base_image(self) -> str | None:
        return "local/base"

    def base_identity(self) -> str:
        return "1"

    def has(self, image_id: str) -> bool:
        return image_id not in self.lost

    @contextmanager
    def running(self) -> Iterator[Docker]:
        engine = self

        class FakeDocker(Docker):
            def __call__(self, *args: str | Path) -> str:
                engine.calls.append(tuple(str(a) for a in args))
                return f"sha256:{len(engine.calls)}"

        yield FakeDocker("docker")

    def builds(self) -> int:
        return sum(call[0] == "build" for call in self.calls)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "CHECKOUT", tmp_path)
    monkeypatch.setattr(images, "selected", lambda names: [Image("tenure/one", "one", "one/Dockerfile")])
    (tmp_path / "one").mkdir()
    return tmp_path


def test_the_table_names_what_the_project_ships() -> None:
    names = [image.name for image in images.TABLE]
    assert names == [
        "tenure/control-plane",
        "tenure/runtime",
        "tenure/scripted-model",
        "tenure/http-api",
        "tenure/mcp-server",
        "tenure/demo-model",
        "tenure/custom-agent",
    ]
    assert images.TABLE[0].tagged("dev") == "tenure/control-plane:dev"


def test_images_are_chosen_by_name_with_or_without_their_prefix() -> None:
    assert [image.name for image in images.selected(["runtime", "tenure/demo-model"])] == [
        "tenure/runtime",
        "tenure/demo-model",
    ]
    assert len(images.selected([])) == len(images.TABLE)
    with pytest.raises(ClusterError, match="no such image: nobody"):
        images.selected(["nobody"])


def test_a_missing_dockerfile_is_an_error(checkout: Path) -> None:
    engine = FakeEngine()
    with pytest.raises(ClusterError, match="one/Dockerfile"):
        images.build(engine, [])
    assert engine.calls == []


def test_an_image_is_built_when_it_is_new_changed_or_lost(checkout: Path) -> None:
    engine = FakeEngine()
    (checkout / "one" / "Dockerfile").write_text("FROM x\nCOPY a /a\n")
    images.build(engine, [])
    images.build(engine, [])
    assert engine.builds() == 1
    (checkout / "one" / "a").write_text("new")
    images.build(engine, [])
    assert engine.builds() == 2
    record = images.read_record("fake", "tenure/one:dev")
    assert record is not None
    engine.lost.add(record.image_id)
    images.build(engine, [])
    assert engine.builds() == 3
    images.build(engine, [], "next")
    assert engine.builds() == 4


def test_a_build_gets_its_base_and_the_hosts_index(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    (checkout / "one" / "Dockerfile").write_text("FROM x\n")
    engine = FakeEngine()
    images.build(engine, [])
    assert {"BASE_IMAGE=local/base", "PIP_INDEX_URL=https://index.example/simple"} <= set(engine.calls[0])


def test_only_settings_that_are_set_are_passed_on() -> None:
    assert build_arguments({"PIP_INDEX_URL": "u", "PIP_RETRIES": "", "HOME": "/h"}) == {"PIP_INDEX_URL": "u"}


def test_the_private_engine_knows_its_images_without_its_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENURE_CACHE", str(tmp_path))
    store = tmp_path / "docker" / "image" / "overlay2"
    (store / "imagedb" / "content" / "sha256").mkdir(parents=True)
    (store / "imagedb" / "content" / "sha256" / "ab12").touch()
    (store / "repositories.json").write_text('{"Repositories": {"a/b": {"a/b:1": "sha256:ab12"}}}')
    engine = PrivateEngine()
    assert engine.has("sha256:ab12")
    assert not engine.has("sha256:cd34")
    assert engine.find("a/b:1") == "sha256:ab12"
    assert engine.find("a/b:2") is None

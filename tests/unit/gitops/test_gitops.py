"""What the GitOps documents show is valid, and Argo CD's health check says what kstatus says."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import LuaRuntime  # type: ignore[import-untyped]

from harness.chart import CHART, render
from tenure_api.conditions import ConditionStatus, ConditionType
from tenure_api.crdgen import KINDS, open_api_schema
from tenure_api.names import GROUP

ROOT = Path(__file__).resolve().parents[3]
GITOPS = ROOT / "docs" / "gitops"
LUA = (GITOPS / "health.lua").read_text()


def health(resource: dict[str, Any]) -> dict[str, str]:
    """What Argo CD makes of an object. It gives the check the object as the global `obj`, and takes what it returns."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.globals()["obj"] = lua.table_from(resource, recursive=True)
    return dict(lua.execute(LUA).items())


def resource(generation: int = 1, observed: int = 1, **conditions: str) -> dict[str, Any]:
    """An object with conditions such as `Ready="True"`."""
    found = [{"type": t, "status": s, "reason": "Why", "message": "What to do."} for t, s in conditions.items()]
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": observed, "conditions": found}}


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (resource(Ready="True"), "Healthy"),
        (resource(Ready="True", Reconciling="True"), "Progressing"),
        (resource(Ready="True", Reconciling="False"), "Healthy"),
        (resource(Ready="False", Reconciling="True"), "Progressing"),
        (resource(Ready="Unknown", Reconciling="True"), "Progressing"),
        (resource(Ready="False"), "Progressing"),
        (resource(Ready="False", Stalled="True"), "Degraded"),
        (resource(Ready="False", Stalled="False"), "Progressing"),
        (resource(2, 1, Ready="True"), "Progressing"),
        (resource(2, 1, Ready="False", Stalled="True"), "Progressing"),
        (resource(1, 1), "Progressing"),
        ({"metadata": {"generation": 1}}, "Progressing"),
        ({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}, "Progressing"),
    ],
)
def test_argo_cd_sees_what_kstatus_sees(found: dict[str, Any], status: str) -> None:
    assert health(found)["status"] == status


def test_the_message_says_why_and_what_to_do() -> None:
    assert health(resource(Ready="False", Stalled="True"))["message"] == "Why: What to do."


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_a_fresh_object_is_progressing(kind: Any) -> None:
    fresh = open_api_schema(kind.model)["properties"]["status"]["default"]
    assert health({"metadata": {"generation": 1}, "status": fresh})["status"] == "Progressing"


def test_the_check_is_configured_for_every_kind() -> None:
    configured = yaml.safe_load((GITOPS / "argocd-health.yaml").read_text())["data"]
    assert configured == {f"resource.customizations.health.{GROUP}_{kind.model.__name__}": LUA for kind in KINDS}


def test_the_check_uses_conditions_that_exist() -> None:
    for type_ in (ConditionType.READY, ConditionType.STALLED, ConditionType.RECONCILING):
        assert f'"{type_.value}"' in LUA
    assert f'"{ConditionStatus.TRUE.value}"' in LUA


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((GITOPS / name).read_text()))


def test_both_tools_install_the_chart_that_is_here_with_values_that_it_accepts() -> None:
    application = documents("argocd-application.yaml")[0]["spec"]
    release = next(d for d in documents("flux.yaml") if d["kind"] == "HelmRelease")["spec"]
    assert (ROOT / application["source"]["path"]).resolve() == CHART
    assert (ROOT / release["chart"]["spec"]["chart"]).resolve() == CHART
    assert render(application["source"]["helm"]["valuesObject"])
    assert render(release["values"])


def test_nothing_of_the_chart_is_left_to_the_crds_folder_that_the_tools_treat_apart() -> None:
    assert not (CHART / "crds").exists()

"""`kubectl tenure` as a person uses it: found by kubectl as a plugin, with nothing but a kubeconfig."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.effects import Effects
from harness.kube import condition, eventually
from harness.manifests import http_tool
from harness.model import call, program
from harness.sleeping import asleep, awake, status
from harness.tenure import ROOT, Place


class Told(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Tenure = Callable[..., Told]


@pytest.fixture(scope="module")
def tenure_command(place: Place, http_api: Effects, tmp_path_factory: pytest.TempPathFactory) -> Tenure:
    """Runs `kubectl tenure` in the place, as alice where the gateway is asked."""
    folder = tmp_path_factory.mktemp("plugins")
    plugin = folder / "kubectl-tenure"
    plugin.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tenure_cli "$@"\n')
    plugin.chmod(0o755)
    environment = place.kube.environment | {"PYTHONPATH": str(ROOT / "operator" / "src")}
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"

    place.caller()
    # Not `wake`: that is for who sits at the kubeconfig.
    place.kube.run("create", "role", "importer", "--verb=import", "--resource=agentsessions.tenure.dev")
    place.kube.run("create", "rolebinding", "importer", "--role=importer", f"--serviceaccount={place.name}:alice")
    tools = [http_tool("pay", "/payments", "POST", approval="Required")]
    place.agent("helper", tools=tools, session={"storage": {"size": "64Mi"}, "idleTimeoutSeconds": 600})

    def run(*arguments: str, stdin: str = "") -> Told:
        command = ["kubectl", "tenure", *arguments, "--namespace", place.name, "--as-serviceaccount", "alice"]
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=180, check=False
        )
        return Told(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def session(place: Place, tenure_command: Tenure) -> str:
    """A session in which something was said, made by the command."""
    told = tenure_command("chat", "helper", "--session", "desk", "--new", stdin="My name is Ada.")
    assert told.code == 0, told.err
    return "desk"


def test_a_conversation_goes_on_and_is_in_the_history(tenure_command: Tenure, session: str) -> None:
    told = tenure_command("chat", "helper", stdin="What is my name?")
    assert told.code == 0, told.err
    assert "Ada" in told.out
    assert f"/{session}" in told.err
    assert tenure_command("history", session).out.startswith("user: My name is Ada.\n")


def test_a_session_is_put_to_sleep_and_is_woken_by_who_may(place: Place, tenure_command: Tenure, session: str) -> None:
    assert tenure_command("sleep", session).code == 0
    before = asleep(place, session)["lease"]["generation"]
    assert "asleep" in tenure_command("why", session).out
    refused = tenure_command("chat", "helper", "--session", session, stdin="say: too soon")
    assert refused.code == 1, refused.err
    assert status(place, session)["effectiveMode"] == "Hibernated"
    assert tenure_command("wake", "--keep", session).code == 0
    assert awake(place, session)["lease"]["generation"] == before + 1
    assert tenure_command("chat", "helper", "--session", session, stdin="say: good morning").out == "good morning\n"


def test_a_session_is_forked_and_the_fork_remembers(tenure_command: Tenure, session: str) -> None:
    assert tenure_command("fork", session, "--name", "forked").code == 0
    told = tenure_command("chat", "helper", "--session", "forked", stdin="What is my name?")
    assert (told.code, "Ada" in told.out) == (0, True), told.err


def test_a_session_is_carried_in_a_file_that_is_of_no_use_without_its_key(
    tenure_command: Tenure, session: str, tmp_path: Path
) -> None:
    file = tmp_path / "desk.bundle"
    told = tenure_command("export", session, "-o", str(file))
    assert told.code == 0, told.err
    assert b"Ada" not in file.read_bytes()
    assert "whole and unchanged" in tenure_command("verify", str(file)).out
    other = tmp_path / "other.key"
    other.write_text("A" * 43 + "=\n")
    refused = tenure_command("import", str(file), "--agent", "helper", "--name", "locked", "--key", str(other))
    assert (refused.code, refused.out) == (1, "")
    told = tenure_command("import", str(file), "--agent", "helper", "--name", "carried")
    assert told.code == 0, told.err
    assert "Ada" in tenure_command("chat", "helper", "--session", "carried", stdin="What is my name?").out


def test_a_turn_that_waits_for_a_person_is_told_with_how_to_decide(
    place: Place, tenure_command: Tenure, session: str
) -> None:
    told = tenure_command("chat", "helper", "--session", session, stdin=program([call("pay", {"order": 7})]))
    assert told.code == 6, told.err
    assert 'pay.pay({"order": 7})' in told.err
    eventually(lambda: condition(place.kube.get("agentsession", session), "TurnSuspended"), 30)
    assert f"kubectl tenure chat {place.name}/helper --session {place.name}/{session}" in (
        tenure_command("why", session).out
    )


def test_a_client_certificate_is_explained_and_a_session_that_is_not_there_is_not_found(place: Place) -> None:
    environment = place.kube.environment | {"PYTHONPATH": str(ROOT / "operator" / "src")}

    def code(*arguments: str) -> int:
        command = [sys.executable, "-m", "tenure_cli", *arguments, "--namespace", place.name]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode

    assert code("history", "desk") == 4
    assert code("why", "absent") == 3

"""A person's desk: runs a command line with streams that are looked at, and a cluster that is a stand-in."""

import argparse
import copy
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tenure_cli.console import Console
from tenure_cli.errors import AlreadyExistsError, CliError, NotFoundError
from tenure_cli.kube import SESSIONS, Access, Kind, Object
from tenure_cli.main import run
from tenure_cli.reach import Reach


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, text: str = "", terminal: bool = False) -> None:
        super().__init__(text)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class StandInCluster:
    """A stand-in for the API server, as `kube.Cluster` shows it. `refusals`: what it raises for a kind,
    `cluster_wide`: only if asked for all namespaces.
    """

    def __init__(self, namespace: str = "shop", user: str = "kate", own: str | None = None) -> None:
        self.namespace = namespace
        self.objects: dict[tuple[Kind, str, str], Object] = {}
        self.refusals: dict[Kind, CliError] = {}
        self.cluster_wide: dict[Kind, CliError] = {}
        self.patches: list[Object] = []
        self.tokens: list[tuple[str, str, str]] = []
        self._user = user
        self._own = own

    def put(self, kind: Kind, obj: Object) -> Object:
        metadata = obj["metadata"]
        self.objects[kind, metadata["namespace"], metadata["name"]] = obj
        return obj

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        self._refuse(kind)
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise NotFoundError(f"There is no {kind.name} {namespace}/{name}.") from None

    def find(self, kind: Kind, namespace: str | None, labels: str = "", fields: str = "") -> list[Object]:
        self._refuse(kind)
        if namespace is None and kind in self.cluster_wide:
            raise self.cluster_wide[kind]
        return [
            obj
            for (of, where, _), obj in self.objects.items()
            if of is kind and namespace in (None, where) and _selected(obj, labels, fields)
        ]

    def create(self, kind: Kind, manifest: Object) -> Object:
        self._refuse(kind)
        metadata = manifest["metadata"]
        if (kind, metadata["namespace"], metadata["name"]) in self.objects:
            raise AlreadyExistsError("There is one already.")
        return self.put(kind, copy.deepcopy(manifest))

    def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        found = self.get(kind, namespace, name)
        self.patches.append(changes)
        _merge(found, changes)
        return found

    def account_token(self, namespace: str, account: str, audience: str) -> str:
        self.tokens.append((namespace, account, audience))
        return f"token-{len(self.tokens)}"

    def own_token(self) -> str | None:
        return self._own

    def user(self) -> str:
        return self._user

    def _refuse(self, kind: Kind) -> None:
        if kind in self.refusals:
            raise self.refusals[kind]


def _selected(obj: Object, labels: str, fields: str) -> bool:
    has = obj["metadata"].get("labels", {})
    about = {"involvedObject.name": obj.get("involvedObject", {}).get("name")}
    pairs = [pair.split("=") for pair in labels.split(",") if pair]
    wanted = [pair.split("=") for pair in fields.split(",") if pair]
    return all(has.get(key) == value for key, value in pairs) and all(about.get(key) == value for key, value in wanted)


def _merge(target: Object, changes: Object) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


@dataclass
class Outcome:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Desk:
    """Where commands are run. `common`: options that all of them get."""

    cluster: StandInCluster = field(default_factory=StandInCluster)
    common: tuple[str, ...] = ()

    def run(self, *arguments: str, stdin: str = "") -> Outcome:
        console = Console(Stream(stdin), Stream(), Stream())
        code = run([*arguments, *self.common], console, self.reach)
        return Outcome(code, console.stdout.getvalue(), console.stderr.getvalue())  # type: ignore[attr-defined]

    def reach(self, options: argparse.Namespace, console: Console) -> Reach:
        return Reach(options, console, self._connect)

    def _connect(self, access: Access) -> StandInCluster:
        return self.cluster


@dataclass
class Script:
    """A person who says this, and answers so."""

    messages: list[str | BaseException]
    answers: list[bool | None] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def message(self) -> str | None:
        if not self.messages:
            return None
        said = self.messages.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said

    def agrees(self, question: str) -> bool | None:
        self.asked.append(question)
        return self.answers.pop(0)


def session(name: str = "chat-1", agent: str = "helper", subject: str = "kate", **more: Any) -> Object:
    """An AgentSession in the namespace shop; `more` are `spec`, `status`, `annotations`, `labels` …"""
    metadata: Object = {"namespace": "shop", "name": name, "creationTimestamp": "2026-11-24T08:00:00Z"}
    metadata |= {key: more[key] for key in ("annotations", "labels", "deletionTimestamp") if key in more}
    spec = {"agentRef": {"name": agent}, "subject": subject, **more.get("spec", {})}
    return {"metadata": metadata, "spec": spec, "status": more.get("status", {})}


def conditions(*told: tuple[str, str, str, str], since: str = "2026-11-24T09:00:00Z") -> list[Object]:
    """Conditions by type, status, reason and message."""
    keys = ("type", "status", "reason", "message")
    return [dict(zip(keys, one, strict=True)) | {"lastTransitionTime": since} for one in told]


def put_all(cluster: StandInCluster, sessions: Iterable[Object], kind: Kind = SESSIONS) -> None:
    for one in sessions:
        cluster.put(kind, one)

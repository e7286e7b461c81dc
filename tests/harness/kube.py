"""kubectl as a few functions. The cluster is the one that `cluster.up()` names, never the user's current context."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import yaml

Manifest = dict[str, Any]
T = TypeVar("T")


class KubectlError(Exception):
    """kubectl failed; the text is what it said."""


class NotYetError(Exception):
    """Raised inside `eventually` while what is waited for is not there."""


def eventually(check: Callable[[], T | Literal[False] | None], seconds: float = 60, every: float = 0.2) -> T:
    """The result of `check` as soon as it neither raises nor returns a false value.

    Raises `AssertionError` with the last failure after `seconds`.
    """
    end = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            if result := check():
                return result
            last = result
        except (AssertionError, KubectlError, NotYetError, LookupError, OSError) as failure:
            last = failure
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s; last: {last!r}")
        time.sleep(every)


@dataclass(frozen=True)
class Kube:
    """kubectl against one cluster, optionally in one namespace and in another one's name."""

    environment: dict[str, str]
    namespace: str | None = None
    impersonate: str | None = None

    def within(self, namespace: str) -> "Kube":
        """The same, in a namespace."""
        return Kube(self.environment, namespace, self.impersonate)

    def acting_as(self, user: str) -> "Kube":
        """The same, as another user."""
        return Kube(self.environment, self.namespace, user)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a call."""
        scope = ["--namespace", self.namespace] if self.namespace else []
        who = ["--as", self.impersonate] if self.impersonate else []
        return ["kubectl", *scope, *who, *arguments]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What kubectl prints. Raises `KubectlError`."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest, server_side: bool = False) -> None:
        """Applies manifests."""
        text = yaml.safe_dump_all(manifests)
        self.run("apply", *(["--server-side"] if server_side else []), "-f", "-", stdin=text)

    def get(self, kind: str, name: str) -> Manifest:
        """One object. Raises `KubectlError` if there is none."""
        found: Manifest = json.loads(self.run("get", kind, name, "-o", "json"))
        return found

    def find(self, kind: str, name: str) -> Manifest | None:
        """One object, or None."""
        text = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, selector: str = "") -> list[Manifest]:
        """All objects of a kind."""
        found: list[Manifest] = json.loads(
            self.run("get", kind, "-o", "json", *(["-l", selector] if selector else []))
        )["items"]
        return found

    def delete(self, kind: str, name: str, *options: str) -> None:
        """Deletes an object; it is no error if it is not there."""
        self.run("delete", kind, name, "--ignore-not-found", *options)

    def patch(self, kind: str, name: str, change: Manifest, *options: str) -> None:
        """Merges a change into an object."""
        self.run("patch", kind, name, "--type", "merge", "-p", json.dumps(change), *options)

    def execute(self, pod: str, container: str, *command: str, stdin: str | None = None) -> str:
        """Runs a command in a container."""
        return self.run("exec", pod, "-c", container, *(["-i"] if stdin else []), "--", *command, stdin=stdin)

    def token(self, account: str, audience: str = "tenure") -> str:
        """A bearer token of a ServiceAccount."""
        return self.run("create", "token", account, "--audience", audience, "--duration", "2h").strip()


def condition(resource: Manifest, type_: str) -> Manifest:
    """A condition of an object. Raises `NotYetError` if it has none of this type."""
    for candidate in resource.get("status", {}).get("conditions", []):
        if candidate["type"] == type_:
            found: Manifest = candidate
            return found
    raise NotYetError(f"{resource['kind']} {resource['metadata']['name']} has no condition {type_}")


def is_ready(resource: Manifest) -> bool:
    """Whether an object is Ready for its current generation."""
    ready = condition(resource, "Ready")
    return bool(ready["status"] == "True" and ready.get("observedGeneration") == resource["metadata"]["generation"])

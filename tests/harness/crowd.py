"""Many sessions in little room: each is told things, and must have kept all of them and nothing else."""

import secrets
import threading
import time
from dataclasses import dataclass, field

import openai

from harness.kube import Manifest, eventually
from harness.tenure import Place
from harness.turns import insisted, waited_out
from tenure_api.names import KEY_LABEL, session_claim, session_key, session_network

PATIENCE = 300.0
"""Seconds for which an answer is awaited, with all repetitions: the room may be taken."""


def room(pods: int) -> Manifest:
    """Lets a namespace hold so many pods, as a node does that holds no more."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "room"},
        "spec": {"hard": {"pods": str(pods)}},
    }


def session_of(conversation: str) -> str:
    """Name of the session of a conversation that the gateway has made."""
    return bytes.fromhex(conversation.removeprefix("conv_")).decode().rpartition("/")[2]


@dataclass
class Member:
    """One session, and what was said in it. One thread at a time."""

    agent: str
    client: openai.OpenAI
    number: int
    conversation: str = ""
    said: list[str] = field(default_factory=list)

    def converse(self) -> float:
        """One turn; then everything that was ever said must be there, in order. Returns the seconds of the turn.

        Raises `AssertionError`.
        """
        if not self.conversation:
            made = eventually(
                lambda: waited_out(lambda: self.client.conversations.create(metadata={"agent": self.agent})), PATIENCE
            )
            self.conversation = made.id
        word = f"{self.number}-{len(self.said)}-{secrets.token_hex(8)}"
        began = time.monotonic()
        answer = insisted(self.client, PATIENCE, model=self.agent, conversation=self.conversation, input=f"say: {word}")
        took = time.monotonic() - began
        assert answer.output_text == word, f"session {self.number} was told {word} and said {answer.output_text!r}"
        self.said += [f"say: {word}", word]
        self.recall()
        return took

    def recall(self) -> None:
        """Everything that was ever said is there, in order. Raises `AssertionError`."""
        found = eventually(lambda: waited_out(self._transcript), PATIENCE)
        assert found == self.said, f"session {self.number} has {found}, and was told {self.said}"

    def _transcript(self) -> list[str]:
        items = self.client.conversations.items.list(self.conversation, order="asc", limit=100)
        return [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]


def owned(place: Place) -> dict[str, set[str]]:
    """Names of what sessions own in a namespace, by kind."""
    kinds = {"persistentvolumeclaims": "", "networkpolicies": "", "secrets": f"{KEY_LABEL}=true"}
    return {kind: {o["metadata"]["name"] for o in place.kube.items(kind, label)} for kind, label in kinds.items()}


def should_own(place: Place) -> dict[str, set[str]]:
    """What it should be, by what the sessions that are there say of themselves."""
    sets = [(s["status"]["setName"], s["status"]["identity"]) for s in place.kube.items("agentsessions")]
    return {
        "persistentvolumeclaims": {session_claim(name) for name, _ in sets},
        "networkpolicies": {session_network(name) for name, _ in sets},
        "secrets": {session_key(name, identity) for name, identity in sets},
    }


class Tally:
    """Seconds of turns, from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        """One more turn."""
        with self._lock:
            self._seconds.append(seconds)

    def __str__(self) -> str:
        ordered = sorted(self._seconds)
        if not ordered:
            return "no turns"
        return f"{len(ordered)} turns; median {ordered[len(ordered) // 2]:.1f} s, longest {ordered[-1]:.1f} s"

"""`make demo`: the whole story on a real cluster, told as a person would want to read it."""

import sys
import time
import tomllib
from collections.abc import Callable
from typing import TypeVar

import openai
import yaml

import cluster
from harness import manifests
from harness.forward import Forward
from harness.kube import Kube, eventually, is_ready
from harness.tenure import ROOT, SYSTEM, Installed, Place, install, kube

NAMESPACE = "demo"
EXAMPLE = ROOT / "examples" / "demo-model"
T = TypeVar("T")


def say(text: str = "") -> None:
    """Prints a line at once."""
    print(text, flush=True)


def step(text: str, act: Callable[[], T]) -> T:
    """Does something that takes a while, and says what and for how long."""
    print(f"• {text} …", end=" ", flush=True)
    began = time.monotonic()
    result = act()
    say(f"{time.monotonic() - began:.1f} s")
    return result


def serve_model(k8s: Kube) -> None:
    """Applies the example model and waits until it answers."""
    k8s.apply(*(d for d in yaml.safe_load_all((EXAMPLE / "model.yaml").read_text()) if d))
    k8s.run("rollout", "status", "deploy/demo-model", "--timeout=180s", timeout=200)


def ask(client: openai.OpenAI, agent: str, conversation: str, text: str) -> str:
    """One streamed turn, shown as it comes."""
    say(f"\n  you    {text}")
    print("  agent  ", end="", flush=True)
    with client.responses.stream(model=agent, conversation=conversation, input=text) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta.replace("\n", "\n         "), end="", flush=True)
        say()
        return stream.get_final_response().output_text


def main() -> None:
    """Tells the story; ends with 1 if the agent has forgotten."""
    step("a real Kubernetes", cluster.up)
    k8s = kube()
    step("Tenure, by Helm", lambda: install(k8s))
    k8s.apply(manifests.namespace(NAMESPACE))
    mine = k8s.within(NAMESPACE)
    step("a small real model, SmolLM2-135M, served in the cluster", lambda: serve_model(mine))
    mine.apply(*(d for d in yaml.safe_load_all((EXAMPLE / "agent.yaml").read_text()) if d))
    step("an agent", lambda: eventually(lambda: is_ready(mine.get("agent", "smol")), 60))
    with Forward(k8s.within(SYSTEM), "service/tenure-gateway", 80) as gateway:
        place = Place(Installed(k8s, gateway), mine, NAMESPACE)
        client = place.client("visitor")
        agent = f"{NAMESPACE}/smol"
        conversation = step(
            "a conversation, made with the OpenAI client",
            lambda: client.conversations.create(metadata={"agent": agent}),
        )
        name = bytes.fromhex(conversation.id.removeprefix("conv_")).decode().split("/")[1]
        step("its session: a pod and a volume of its own", lambda: _ready(mine, name))
        story = tomllib.loads((EXAMPLE / "story.toml").read_text())
        for text in story["before"]:
            ask(client, agent, conversation.id, text)
        say()
        pod = f"{name}-session"
        old = mine.get("pod", pod)["metadata"]["uid"]
        began = time.monotonic()
        step(f"kill the session's pod {pod}, without grace", lambda: _kill(mine, pod, old))
        step("the operator makes a new one on the same volume", lambda: _ready(mine, name))
        say(f"  the session was back {time.monotonic() - began:.1f} s after its death")
        answer = ask(client, agent, conversation.id, story["after"])
        say("\n" + mine.run("get", "agents,agentsessions").rstrip())
    remembered = story["remembers"].lower() in answer.lower()
    say(
        "\nThe agent still knows."
        if remembered
        else f"\nThe agent was told {story['remembers']!r} and does not say so."
    )
    say('The cluster stays up for you to look around: eval "$(PYTHONPATH=tests .venv/bin/python -m cluster env)"')
    say("`make cluster-down` removes it.")
    sys.exit(0 if remembered else 1)


def _ready(k8s: Kube, session: str) -> None:
    eventually(lambda: is_ready(k8s.get("agentsession", session)), 120)


def _kill(k8s: Kube, pod: str, uid: str) -> None:
    k8s.delete("pod", pod, "--grace-period=0", "--force", "--wait=false")
    eventually(lambda: (found := k8s.find("pod", pod)) is None or found["metadata"]["uid"] != uid, 60)


if __name__ == "__main__":
    main()

"""Code that nobody trusts: what it keeps, what it cannot reach, and what it cannot break. Real packets, real files.

Everything is run by the `code` tool, for what `kubectl exec` starts is outside of the executor's walls.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from harness.killing import Killer
from harness.kube import Kube, KubectlError, eventually, is_ready
from harness.link_local import link_local_host
from harness.manifests import MODEL_URL, session
from harness.small_volume import small_volume
from harness.tenure import Place
from harness.turns import waited_out
from tenure_api.names import session_pod

CREDENTIAL = "sk-test-credential-that-no-code-may-see"
JOURNALLED = "a sentence that is in the journal"
CONNECT = """
import errno, socket
from concurrent.futures import ThreadPoolExecutor


def reach(target):
    try:
        socket.create_connection((target[0], int(target[1])), timeout=3).close()
        return "connected"
    except OSError as error:
        return "denied" if error.errno == errno.EACCES else "no answer"


with ThreadPoolExecutor() as pool:
    print(*pool.map(reach, TARGETS), sep=chr(10))
"""
FILL = """
import time
with open("big", "ab") as file:
    while True:
        file.write(bytes(128 << 10))
        file.flush()
        time.sleep(0.01)
"""
RESOLVE = """
import socket
try:
    print(socket.getaddrinfo("scripted-model.tenure-test.svc", 8000))
except OSError:
    print("no name")
"""
FAMILIES = """
import socket
for name in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(getattr(socket, name), kind)
            print(name, kind)
        except PermissionError:
            pass
"""
MANY = """
import os, signal
for _ in range(8):
    if os.fork() == 0:
        held = b"x" * (150 << 20)
        signal.pause()
while True:
    print(os.wait())
"""
FIND = """
import os, stat
needles = [bytes(reversed(bytes.fromhex(needle))) for needle in NEEDLES]
found = []
for root, dirs, files in os.walk("/"):
    dirs[:] = [d for d in dirs if os.path.join(root, d) not in ("/dev", "/sys", "/usr", "/lib")]
    for name in files:
        path = os.path.join(root, name)
        if path.startswith("/proc") and not path.endswith(("/environ", "/cmdline")):
            continue
        try:
            if path.startswith("/proc") or stat.S_ISREG(os.stat(path).st_mode):
                with open(path, "rb") as file:
                    data = file.read(4_000_000)
                found += [path for needle in needles if needle in data]
        except OSError:
            pass
print(found)
places = ("/data", "/etc/tenure", "/var/run/secrets", *(f"/var/run/tenure/{name}" for name in ("key", "credentials")))
print([path for path in places if os.path.exists(path)], os.listdir("/run/tenure"))
"""

Run = Callable[..., str]


def agent_spec(seconds: int, **code: object) -> dict[str, object]:
    tool = {"name": "code", "code": {"maxProcesses": 48, **code}, "timeoutSeconds": seconds}
    model = {"name": "scripted", "baseURL": MODEL_URL, "credentialsSecretRef": {"name": "model"}}
    return {"model": model, "tools": [tool]}


def runner(place: Place, client: openai.OpenAI, session: str, agent: str) -> Run:
    """What runs code in a session, as its model asks for it, and gives what the model is told."""

    def run(code: str, language: str = "python") -> str:
        call = {"name": "code", "arguments": {"language": language, "code": code}}
        asked = "plan:" + json.dumps({"rounds": [{"calls": [call]}], "final": "Done."})
        answer = client.responses.create(
            model=f"{place.name}/{agent}", conversation=f"{place.name}/{session}", input=asked
        )
        assert answer.output_text == "Done."
        [made] = [item for item in answer.output if item.type == "mcp_call"]
        error: Any = made.error
        return str(made.output if error is None else error.content[0]["text"])

    return run


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


@pytest.fixture(scope="module")
def agents(place: Place) -> Place:
    """An agent whose code has no network, and one whose code has; its container is of another image."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "model"},
        "stringData": {"api-key": CREDENTIAL},
    }
    place.kube.apply(secret)
    place.agent("closed", **agent_spec(4))
    place.agent("open", **agent_spec(30, network="Allowed", image="tenure/scripted-model:dev"))
    place.kube.apply(*(session(name, name, place.subject()) for name in ("closed", "open")))
    eventually(lambda: all(is_ready(place.kube.get("agentsession", name)) for name in ("closed", "open")), 120)
    return place


@pytest.fixture(scope="module")
def closed(agents: Place, client: openai.OpenAI) -> Run:
    return runner(agents, client, "closed", "closed")


@pytest.fixture(scope="module")
def opened(agents: Place, client: openai.OpenAI) -> Run:
    return runner(agents, client, "open", "open")


@pytest.fixture(scope="module")
def metadata(k8s: Kube, killer: Killer, agents: Place) -> Iterator[tuple[str, str]]:
    """A host at a link-local address."""
    node = agents.kube.get("pod", session_pod("open"))["spec"]["nodeName"]
    with link_local_host(k8s, node) as found:
        yield found


def restarts(place: Place, session: str, container: str) -> int:
    status = place.kube.get("pod", session_pod(session))["status"]
    every = [*status["initContainerStatuses"], *status["containerStatuses"]]
    return int(next(one["restartCount"] for one in every if one["name"] == container))


def test_files_stay_across_turns_and_pods_and_nothing_else_does(agents: Place, closed: Run) -> None:
    assert closed("print(sum(range(10)))") == "45\n"
    assert (
        closed("cd; echo kept > notes.txt; echo gone > $TMPDIR/notes.txt; pwd; umask", "shell") == "/workspace\n0002\n"
    )
    look = "cat notes.txt; ls $TMPDIR/notes.txt 2>/dev/null || echo nothing else"
    assert closed(look, "shell") == "kept\nnothing else\n"
    before = agents.kube.get("pod", session_pod("closed"))["metadata"]["uid"]
    agents.kube.delete("pod", session_pod("closed"), "--wait=false")
    eventually(lambda: agents.kube.get("pod", session_pod("closed"))["metadata"]["uid"] != before)
    eventually(lambda: is_ready(agents.kube.get("agentsession", "closed")), 60)
    assert closed(look, "shell") == "kept\nnothing else\n"
    assert agents.kube.execute(session_pod("closed"), "agent", "cat", "/workspace/notes.txt") == "kept\n"


@pytest.mark.parametrize("network", ["closed", "open"])
def test_code_finds_no_journal_key_credential_or_token(
    agents: Place, client: openai.OpenAI, request: pytest.FixtureRequest, network: str
) -> None:
    run: Run = request.getfixturevalue({"closed": "closed", "open": "opened"}[network])
    session = f"{agents.name}/{network}"
    client.responses.create(model=session, conversation=session, input=f"say: {JOURNALLED}")
    secret = agents.kube.get("secret", agents.key(network))["data"]
    token = agents.kube.execute(session_pod(network), "agent", "sh", "-c", "echo $OPENAI_API_KEY").strip()
    needles = [CREDENTIAL, JOURNALLED, secret["data-key"], token]
    assert all(needles)
    # Backwards, for the code itself is a file of its container.
    hidden = [needle.encode()[::-1].hex() for needle in needles]
    assert run(FIND.replace("NEEDLES", repr(hidden))) == "[]\n[] ['exec']\n"


def test_code_without_the_network_reaches_nobody(agents: Place, closed: Run, metadata: tuple[str, str]) -> None:
    own = [("127.0.0.1", port) for port in ("8000", "8080", "8081", "9090")]
    other = agents.kube.get("pod", session_pod("open"))["status"]["podIP"]
    targets = [*own, (other, "8081"), (other, "9090"), *api_server(agents), metadata]
    assert closed(CONNECT.replace("TARGETS", repr(targets))).split("\n")[:-1] == ["denied"] * len(targets)
    assert closed(RESOLVE) == "no name\n"
    assert closed(FAMILIES) == "[No output.]"


def api_server(place: Place) -> list[tuple[str, str]]:
    """Its addresses, by the Service and without."""
    default = place.kube.within("default")
    endpoint = default.items("endpointslices", "kubernetes.io/service-name=kubernetes")[0]
    direct = (endpoint["endpoints"][0]["addresses"][0], str(endpoint["ports"][0]["port"]))
    return [(default.get("service", "kubernetes")["spec"]["clusterIP"], "443"), direct]


def test_code_with_the_network_reaches_what_the_policy_leaves_and_no_more(
    agents: Place, opened: Run, metadata: tuple[str, str], k8s: Kube
) -> None:
    model = ("scripted-model.tenure-test.svc", "8000")
    other = agents.kube.get("pod", session_pod("closed"))["status"]["podIP"]
    targets = [model, *api_server(agents), metadata, (other, "8081"), (other, "8080"), (other, "8000")]
    found = opened(CONNECT.replace("TARGETS", repr(targets))).split("\n")[:-1]
    assert found == ["connected", *["no answer"] * 6]
    node = agents.kube.get("pod", session_pod("open"))["spec"]["nodeName"]
    free = CONNECT.replace("TARGETS", repr([metadata]))
    assert k8s.within("tenure-test-killer").execute(node, "killer", "python3", "-c", free) == "connected\n"
    ask = """
import urllib.error, urllib.request
for port, path in ((8080, "/v1/models"), (8081, "/v1/report"), (8081, "/v1/items")):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)
        print("answered")
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    assert opened(ask) == "401\n401\n401\n"


DESTRUCTIVE = {
    "a fork bomb": ("bomb() { bomb | bomb & }; bomb; while :; do :; done", "shell", "Stopped after"),
    "an endless loop": ("while True: pass", "python", "Stopped after"),
    "an allocation of 10 GB": ("bytearray(10 << 30)", "python", "MemoryError"),
    "an endless list": ("held = []\nwhile True: held.append(bytearray(8 << 20))", "python", "MemoryError"),
    "many that take memory": (MANY, "python", ""),
    "a flood of output": ("yes", "shell", "bytes left out"),
    "the death of all": ("kill -KILL 1 -1", "shell", ""),
}


@pytest.mark.parametrize("what", DESTRUCTIVE)
def test_code_that_destroys_leaves_the_sidecar_serving_and_the_session_usable(
    agents: Place, client: openai.OpenAI, closed: Run, what: str
) -> None:
    code, language, told = DESTRUCTIVE[what]
    before = restarts(agents, "closed", "sidecar")
    assert told in closed(code, language)
    name = f"{agents.name}/closed"
    answer = client.responses.create(model=name, conversation=name, input="say: still here")
    assert answer.output_text == "still here"
    assert closed("echo next", "shell") == "next\n"
    assert restarts(agents, "closed", "sidecar") == before
    assert is_ready(agents.kube.get("agentsession", "closed"))


def test_code_that_fills_the_disk_leaves_the_session_usable(
    place: Place, agents: Place, client: openai.OpenAI, killer: Killer
) -> None:
    with small_volume(place, "small", "32Mi") as storage_class:
        storage = {"size": "32Mi", "storageClassName": storage_class}
        name = place.agent("small", **agent_spec(30), session={"storage": storage})
        conversation = place.session("small", "small")
        run = runner(place, client, "small", "small")
        assert "disk is full" in run(FILL)
        assert run("head -c 99999999 /dev/zero >> more", "shell")
        # A turn may be refused now (507); what needs no turn goes on, and makes room.
        container = f"cntr_{conversation.encode().hex()}"
        (big,) = [file for file in client.containers.files.list(container) if file.path.endswith("big")]
        client.containers.files.delete(big.id, container_id=container)

        def still() -> str:
            return client.responses.create(model=name, conversation=conversation, input="say: still here").output_text

        assert eventually(lambda: waited_out(still), 30) == "still here"
        assert run("rm more; echo deleted", "shell") == "deleted\n"
        assert run("echo fits > c; cat c", "shell") == "fits\n"
        assert restarts(place, "small", "sidecar") == 0


def test_a_container_of_code_that_is_gone_comes_back(agents: Place, closed: Run, killer: Killer) -> None:
    killer.kill_container(session_pod("closed"), "workspace")
    assert closed("echo again", "shell") == "again\n"
    assert restarts(agents, "closed", "sidecar") == 0


def test_the_workspace_has_no_privilege_and_no_other_mount(agents: Place) -> None:
    pod = session_pod("closed")
    status = agents.kube.execute(pod, "workspace", "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert (fields["NoNewPrivs"], fields["Seccomp"], int(fields["CapEff"], 16)) == ("1", "2", 0)
    assert int(fields["Seccomp_filters"]) >= 2  # the runtime's and the executor's
    assert int(fields["Uid"].split()[0]) >= 10**9
    for path in ("/etc/made", "/opt/tenure/made", "/usr/made"):
        with pytest.raises(KubectlError):
            agents.kube.execute(pod, "workspace", "touch", path)

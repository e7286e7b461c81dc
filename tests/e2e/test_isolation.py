"""What an agent, another session and another caller cannot do. With real packets, real files and real tokens."""

import json

import httpx
import openai
import pytest

from harness.kube import Kube, KubectlError
from harness.manifests import MODEL_URL, account, bind
from harness.tenure import Place

CREDENTIAL = "sk-test-credential-that-no-agent-may-see"
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("connected")
except OSError as error:
    print("refused", type(error).__name__)
"""
FIND = """
import os, stat, sys
needles = [line.encode() for line in sys.stdin.read().split()]
found = set()
for root, dirs, files in os.walk("/"):
    dirs[:] = [d for d in dirs if os.path.join(root, d) not in ("/dev", "/sys", "/usr", "/lib")]
    for name in files:
        path = os.path.join(root, name)
        if path.endswith(("/environ", "/cmdline")) or not path.startswith("/proc"):
            try:
                if path.startswith("/proc") or stat.S_ISREG(os.stat(path).st_mode):
                    file = open(path, "rb")
                else:
                    continue
                with file:
                    data = file.read(4_000_000)
            except OSError:
                continue
            if any(needle in data for needle in needles):
                found.add(path)
print("\\n".join(sorted(found)))
"""


def python(kube: Kube, pod: str, container: str, script: str, *arguments: str, stdin: str | None = None) -> str:
    """Runs a script in a container."""
    return kube.execute(pod, container, "python3", "-c", script, *arguments, stdin=stdin).strip()


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "model"},
        "stringData": {"api-key": CREDENTIAL},
    }
    place.kube.apply(secret)
    model = {"name": "scripted", "baseURL": MODEL_URL, "credentialsSecretRef": {"name": "model"}}
    return place.agent(model=model)


@pytest.fixture(scope="module")
def sessions(place: Place, agent: str) -> tuple[str, str]:
    """Two sessions: alice's and bob's."""
    return place.session("hers"), place.session("his", account="bob")


def test_the_agent_container_cannot_read_journal_keys_or_credential(
    place: Place, agent: str, sessions: tuple[str, str]
) -> None:
    client = place.client()
    client.responses.create(model=agent, conversation=sessions[0], input="say: a sentence in the journal")
    for path in ("/data", "/data/state", "/var/run/tenure", "/etc/tenure"):
        with pytest.raises(KubectlError):
            place.kube.execute("hers-session", "agent", "ls", path)
    assert place.kube.execute("hers-session", "agent", "ls", "/workspace") == ""
    key = json.loads(place.kube.run("get", "secret", place.key("hers"), "-o", "json"))["data"]["data-key"]
    assert python(place.kube, "hers-session", "agent", FIND, stdin=f"{CREDENTIAL}\n{key}") == ""
    assert CREDENTIAL in place.kube.execute(
        "hers-session", "sidecar", "cat", "/var/run/tenure/credentials/model/api-key"
    )


def test_the_agent_container_cannot_reach_the_api_server(place: Place, sessions: tuple[str, str]) -> None:
    with pytest.raises(KubectlError):
        place.kube.execute("hers-session", "agent", "ls", "/var/run/secrets/kubernetes.io")
    host = place.kube.execute("hers-session", "agent", "sh", "-c", "echo $KUBERNETES_SERVICE_HOST").strip()
    endpoint = place.kube.within("default").items("endpointslices", "kubernetes.io/service-name=kubernetes")[0]
    address, port = endpoint["endpoints"][0]["addresses"][0], str(endpoint["ports"][0]["port"])
    for target in ((host or "10.96.0.1", "443"), (address, port)):
        assert python(place.kube, "hers-session", "agent", CONNECT, *target).startswith("refused")


def test_another_sessions_pod_cannot_reach_this_ones_sidecar(place: Place, sessions: tuple[str, str]) -> None:
    address = place.kube.get("pod", "hers-session")["status"]["podIP"]
    assert python(place.kube, "hers-session", "sidecar", CONNECT, address, "8081") == "connected"
    for port in ("8080", "8081", "8000"):
        assert python(place.kube, "his-session", "agent", CONNECT, address, port).startswith("refused")


def test_the_sidecar_gives_the_agent_nothing_without_a_signed_token(place: Place, sessions: tuple[str, str]) -> None:
    script = """
import os, sys, urllib.request, urllib.error
for path in ("/v1/items", "/v1/report", "/v1/turns/" + "0" * 32):
    for token in (None, os.environ["OPENAI_API_KEY"], "e30.e30.e30"):
        request = urllib.request.Request("http://127.0.0.1:8081" + path)
        if token:
            request.add_header("Authorization", "Bearer " + token)
        try:
            urllib.request.urlopen(request)
            print("answered", path)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                print(error.code, path)
"""
    assert python(place.kube, "hers-session", "agent", script) == ""


def test_the_model_proxy_takes_only_the_pods_own_token(place: Place, sessions: tuple[str, str]) -> None:
    script = """
import sys, urllib.request, urllib.error
request = urllib.request.Request("http://127.0.0.1:8080/v1/models", headers={"Authorization": "Bearer guess"})
try:
    urllib.request.urlopen(request)
    print("answered")
except urllib.error.HTTPError as error:
    print(error.code)
"""
    assert python(place.kube, "hers-session", "agent", script) == "401"


def status(place: Place, token: str | None, method: str, path: str, body: object = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.request(method, f"{place.tenure.gateway.url}{path}", headers=headers, json=body, timeout=60)
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.status_code, answer.text


@pytest.mark.parametrize("who", ["nobody", "garbage", "wrong audience", "no role", "another subject"])
def test_whoever_is_not_allowed_gets_an_error_and_never_data(
    place: Place, agent: str, sessions: tuple[str, str], who: str
) -> None:
    place.client().responses.create(model=agent, conversation=sessions[0], input="say: the secret word is xyzzy")
    place.kube.apply(account("stranger"))
    token, expected = {
        "nobody": (None, {401}),
        "garbage": ("not-a-token", {401}),
        "wrong audience": (place.kube.token("alice", audience="other"), {401}),
        "no role": (place.kube.token("stranger"), {404}),
        "another subject": (place.caller("bob"), {404}),
    }[who]
    turn = {"model": agent, "conversation": sessions[0], "input": "history"}
    chat = {
        "model": agent,
        "messages": [{"role": "user", "content": "history"}],
        "metadata": {"conversation": sessions[0]},
    }
    calls: list[tuple[str, str, object]] = [
        ("POST", "/v1/responses", turn),
        ("POST", "/v1/responses", {**turn, "stream": True}),
        ("POST", "/v1/chat/completions", chat),
        ("GET", f"/v1/conversations/conv_{sessions[0].encode().hex()}", None),
        ("GET", f"/v1/conversations/conv_{sessions[0].encode().hex()}/items", None),
        ("DELETE", f"/v1/conversations/conv_{sessions[0].encode().hex()}", None),
    ]
    for call in calls:
        code, text = status(place, token, *call)
        assert code in expected, call
        assert "xyzzy" not in text
    assert place.kube.find("agentsession", "hers")


def test_whom_rbac_lets_act_for_others_reads_the_session(place: Place, agent: str, sessions: tuple[str, str]) -> None:
    place.kube.apply(account("support"), bind("tenure-session-operator", "support", place.name))
    place.kube.apply(bind("tenure-session-user", "support", place.name))
    client: openai.OpenAI = place.tenure.client(place.kube.token("support"))
    items = client.conversations.items.list(f"conv_{sessions[0].encode().hex()}")
    assert [item for item in items if item.type == "message"] != []


def test_credentials_are_in_no_log_event_or_status(place: Place, agent: str, sessions: tuple[str, str]) -> None:
    token = place.kube.execute("hers-session", "agent", "sh", "-c", "echo $OPENAI_API_KEY").strip()
    everything = [place.kube.run("logs", "hers-session", "--all-containers")]
    everything += [
        place.kube.run("get", kind, "-o", "yaml")
        for kind in ("events", "agents", "agentsessions", "pods", "configmaps")
    ]
    system = place.kube.within("tenure-system")
    for component in ("operator", "gateway"):
        selector = f"app.kubernetes.io/component={component}"
        everything.append(system.run("logs", "-l", selector, "--tail=-1", "--all-containers"))
    for text in everything:
        assert CREDENTIAL not in text
        assert token not in text

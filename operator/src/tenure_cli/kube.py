"""The only module of the command that knows the Kubernetes client. Plain dicts in and out; all errors `CliError`s."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config
from urllib3.exceptions import HTTPError
from yaml import YAMLError

from tenure_api.names import GROUP, VERSION
from tenure_cli.errors import AlreadyExistsError, CliError, NotAllowedError, NotFoundError, NotNowError

Object = dict[str, Any]

_TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and for an answer."""
_PAGE = 500
"""Objects in one page of a list, as in kubectl."""
_FIELD_MANAGER = "kubectl-tenure"
_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_TOKEN_SECONDS = 3600
_BEARER = "Bearer "


class Kind(NamedTuple):
    """A kind of object, by the path of its API and its plural."""

    api: str
    plural: str
    name: str

    def path(self, namespace: str | None, name: str = "") -> str:
        """Of one object, or of all in a namespace or (None) in the cluster."""
        within = "" if namespace is None else f"/namespaces/{namespace}"
        return f"{self.api}{within}/{self.plural}" + (f"/{name}" if name else "")


AGENTS = Kind(f"/apis/{GROUP}/{VERSION}", "agents", "agent")
SESSIONS = Kind(f"/apis/{GROUP}/{VERSION}", "agentsessions", "session")
PODS = Kind("/api/v1", "pods", "pod")
CLAIMS = Kind("/api/v1", "persistentvolumeclaims", "volume claim")
SERVICES = Kind("/api/v1", "services", "service")
EVENTS = Kind("/api/v1", "events", "event")
_ACCOUNTS = Kind("/api/v1", "serviceaccounts", "service account")


class Cluster(Protocol):
    """The calls that the commands make. All raise `CliError`: `NotNowError` if there is no answer."""

    namespace: str
    """Of the context."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object. Raises `NotFoundError`."""

    def find(self, kind: Kind, namespace: str | None, labels: str = "", fields: str = "") -> list[Object]:
        """All objects of a namespace, or (None) of the cluster, that the selectors select."""

    def create(self, kind: Kind, manifest: Object) -> Object:
        """Makes an object. Raises `AlreadyExistsError`."""

    def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        """Merges changes into an object."""

    def account_token(self, namespace: str, account: str, audience: str) -> str:
        """A token of a ServiceAccount, for an hour."""

    def own_token(self) -> str | None:
        """The token by which the API server knows who calls; None if it is by something else."""

    def user(self) -> str:
        """By which name the API server knows who calls."""


@dataclass(frozen=True)
class Access:
    """Which cluster, as kubectl is told: with neither, the current context of the usual kubeconfig."""

    kubeconfig: str | None = None
    context: str | None = None


def connect(access: Access) -> "ApiServer":
    """The cluster that the kubeconfig names. Raises `CliError`."""
    configuration = Configuration()
    try:
        load_kube_config(  # type: ignore[no-untyped-call]
            access.kubeconfig, access.context, configuration, persist_config=False
        )
        contexts, current = list_kube_config_contexts(access.kubeconfig)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, YAMLError) as error:
        raise CliError(f"The kubeconfig cannot be used: {error}. Name one with --kubeconfig or KUBECONFIG.") from None
    chosen = next((c for c in contexts if c["name"] == access.context), current)
    return ApiServer(ApiClient(configuration), chosen["context"].get("namespace") or "default")


class ApiServer:
    """See `Cluster`."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """See `Cluster`."""
        return self._call("GET", kind.path(namespace, name), f"{kind.name} {namespace}/{name}")

    def find(self, kind: Kind, namespace: str | None, labels: str = "", fields: str = "") -> list[Object]:
        """See `Cluster`."""
        return [found for page in self._pages(kind, namespace, labels, fields) for found in page]

    def _pages(self, kind: Kind, namespace: str | None, labels: str, fields: str) -> Iterator[list[Object]]:
        query = {"limit": str(_PAGE)}
        query |= {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": fields} if fields else {}
        what = f"{kind.name}s in {'all namespaces' if namespace is None else namespace}"
        while True:
            page = self._call("GET", f"{kind.path(namespace)}?{urlencode(query)}", what)
            yield page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return
            query["continue"] = more

    def create(self, kind: Kind, manifest: Object) -> Object:
        """See `Cluster`."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        path = f"{kind.path(namespace)}?fieldManager={_FIELD_MANAGER}"
        return self._call("POST", path, f"{kind.name} {namespace}/{name}", manifest)

    def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        """See `Cluster`."""
        path = f"{kind.path(namespace, name)}?fieldManager={_FIELD_MANAGER}"
        return self._call("PATCH", path, f"{kind.name} {namespace}/{name}", changes)

    def account_token(self, namespace: str, account: str, audience: str) -> str:
        """See `Cluster`."""
        wanted = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": _TOKEN_SECONDS},
        }
        path = f"{_ACCOUNTS.path(namespace, account)}/token"
        answer = self._call("POST", path, f"a token of service account {namespace}/{account}", wanted)
        token: str = answer["status"]["token"]
        return token

    def own_token(self) -> str | None:
        """See `Cluster`."""
        header: str | None = self._client.configuration.get_api_key_with_prefix("BearerToken")
        return header.removeprefix(_BEARER) if header and header.startswith(_BEARER) else None

    def user(self) -> str:
        """See `Cluster`."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self._call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "who you are", review)
        name: str = answer["status"]["userInfo"]["username"]
        return name

    def _call(self, method: str, path: str, what: str, body: Object | None = None) -> Object:
        host = self._client.configuration.host
        headers = {"Accept": _JSON, "Content-Type": _MERGE if method == "PATCH" else _JSON}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        try:
            response = self._client.rest_client.request(  # type: ignore[no-untyped-call]
                method, f"{host}{path}", headers=headers, body=body, _request_timeout=_TIMEOUT
            )
            status, text = response.status, response.read()
        except ApiException as error:
            if not error.status:
                raise NotNowError(f"The API server at {host} does not answer: {error.reason}") from None
            status, text = error.status, error.body or b""
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise NotNowError(f"The API server at {host} does not answer: {reason}") from None
        return _answer(status, text, what)


def _answer(status: int, text: str | bytes, what: str) -> Object:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status < 300 and isinstance(answer, dict):
        return answer
    said = answer.get("message") if isinstance(answer, dict) else None
    reason = answer.get("reason") if isinstance(answer, dict) else None
    message = said or f"the API server answers {status} to the request for {what}"
    if status == 404:
        raise NotFoundError(_absent(what, answer))
    if status in (401, 403):
        raise NotAllowedError(f"Kubernetes does not let you have {what}: {message}")
    if status == 409 and reason == "AlreadyExists":
        raise AlreadyExistsError(f"There is a {what} already.")
    if status == 429 or status >= 500 or status < 300:
        raise NotNowError(f"Kubernetes cannot give {what} now: {message}")
    raise CliError(f"Kubernetes refuses {what}: {message}")


def _absent(what: str, answer: Any) -> str:
    """404 also says that the kind is unknown, in which case it has no details."""
    details = answer.get("details") if isinstance(answer, dict) else None
    if not details or not details.get("name"):
        return f"The cluster does not know of any {what}: is Tenure installed in it?"
    return f"There is no {what}."

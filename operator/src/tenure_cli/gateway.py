"""The gateway, spoken to with the official OpenAI client; bundles, of which OpenAI's API knows nothing, over HTTP."""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import httpx2
import openai
from openai.types.responses import Response, ResponseStreamEvent

from tenure_cli.errors import (
    ApprovalNeededError,
    CliError,
    GatewayLostError,
    NotAllowedError,
    NotFoundError,
    NotNowError,
)
from tenure_cli.names import Key

Object = dict[str, Any]
Events = Iterator[ResponseStreamEvent]

_KEY_HEADER = "X-Tenure-Bundle-Key"
_CONNECT_SECONDS = 10.0
_TURN_SECONDS = 3600.0
"""Longest silence in the stream of a turn: the gateway itself waits no longer."""
_BUNDLE_SECONDS = 600.0
"""Longest silence while a bundle goes over: the session may have to be woken first."""
_RETRIES = 2


class Decision(NamedTuple):
    """What a person says of a call that waits."""

    approval: str
    approve: bool


class Gateway:
    """One gateway, and one who calls it. All calls raise `CliError`: `GatewayLostError` if the way to it broke.

    `renew` makes the way to it anew, without changing `url`.
    """

    def __init__(self, url: str, credential: Callable[[], str], renew: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._credential = credential
        self._http = httpx2.Client(timeout=httpx2.Timeout(_TURN_SECONDS, connect=_CONNECT_SECONDS))
        self._client = openai.OpenAI(
            base_url=f"{url}/v1",
            api_key=credential,
            max_retries=_RETRIES,
            http_client=self._http,
            # Of these the client would take whatever its environment says.
            organization="",
            project="",
        )
        self.renew = renew

    def close(self) -> None:
        """Ends all connections."""
        self._client.close()

    # --- conversations -----------------------------------------------------------------------------------------------

    def begin(self, agent: Key) -> Key:
        """Makes a session of the caller's with an agent."""
        with _faults():
            # Not repeated: an answer that got lost would leave a session that nobody knows of.
            made = self._client.with_options(max_retries=0).conversations.create(metadata={"agent": str(agent)})
        # What is no JSON the client hands on as text.
        if isinstance(made, str):
            raise CliError(f"What answers at {self._url} is no gateway of Tenure.")
        return _session(made.id)

    def items(self, session: Key, newest_first: bool = False) -> Iterator[Object]:
        """The transcript, page by page as it is read."""
        with _faults():
            order: Literal["asc", "desc"] = "desc" if newest_first else "asc"
            for item in self._client.conversations.items.list(_conversation(session), order=order, limit=100):
                yield item.to_dict()

    def say(self, session: Key, text: str) -> Callable[[], Events]:
        """Begins a turn each time that it is called, but only the first time a new one: the others follow that."""
        key = str(uuid.uuid4())

        def ask() -> Events:
            return self._streamed(
                lambda: self._client.responses.create(
                    conversation=str(session), input=text, stream=True, extra_headers={"Idempotency-Key": key}
                )
            )

        return ask

    def decide(self, response: str, decisions: list[Decision]) -> Events:
        """Goes on with a response that waits: its events from there on."""
        said: Any = [
            {"type": "mcp_approval_response", "approval_request_id": d.approval, "approve": d.approve}
            for d in decisions
        ]
        return self._streamed(
            lambda: self._client.responses.create(previous_response_id=response, input=said, stream=True)
        )

    def follow(self, response: str, after: int | None = None) -> Events:
        """The events of a response that was begun before, after the one of this number."""
        given: Any = {} if after is None else {"starting_after": after}
        return self._streamed(lambda: self._client.responses.retrieve(response, stream=True, **given))

    def response(self, session: Key, turn: str) -> Response | None:
        """The response that a turn gives; None if there is no such turn any more."""
        with _faults():
            try:
                return self._client.responses.retrieve(f"resp_{str(session).encode().hex()}_{turn}")
            except openai.NotFoundError:
                return None

    def cancel(self, response: str) -> None:
        """Ends a turn."""
        with _faults():
            self._client.responses.cancel(response)

    def _streamed(self, ask: Callable[[], Any]) -> Events:
        with _faults():
            stream = ask()
            try:
                yield from stream
            finally:
                stream.close()

    # --- bundles -----------------------------------------------------------------------------------------------------

    @contextmanager
    def export(
        self, session: Key, key: str | None, at: int | None = None
    ) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """The bundle of a session as it comes, and its length if that is known.

        `key` seals it; `at` leaves out the turns that had not ended by this record.
        """
        with (
            _faults(),
            self._http.stream(
                "GET",
                self._bundle(session),
                params={} if at is None else {"at": str(at)},
                headers=self._headers(key),
                timeout=_BUNDLE_SECONDS,
            ) as answer,
        ):
            _refuse(answer)
            length = answer.headers.get("content-length")
            yield None if length is None else int(length), answer.iter_raw()

    def import_(self, session: Key, agent: str, key: str | None, parts: Iterator[bytes], length: int) -> Object:
        """Makes a session from a bundle."""
        headers = self._headers(key) | {"content-type": "application/gzip", "content-length": str(length)}
        with (
            _faults(),
            self._http.stream(
                "POST",
                self._bundle(session),
                params={"agent": agent},
                headers=headers,
                content=parts,
                timeout=_BUNDLE_SECONDS,
            ) as answer,
        ):
            _refuse(answer)
            answer.read()
            told: Object = answer.json() if answer.content else {}
            return told

    def _bundle(self, session: Key) -> str:
        return f"{self._url}/v1/tenure/sessions/{session.namespace}/{session.name}/bundle"

    def _headers(self, key: str | None) -> dict[str, str]:
        known = {"authorization": f"Bearer {self._credential()}"}
        return known if key is None else known | {_KEY_HEADER: key}


def _conversation(session: Key) -> str:
    return f"conv_{str(session).encode().hex()}"


def _session(conversation: str) -> Key:
    namespace, _, name = bytes.fromhex(conversation.removeprefix("conv_")).decode().partition("/")
    return Key(namespace, name)


def _named(text: str) -> str:
    """The text with sessions called what people call them."""
    return re.sub(r"conv_(?:[0-9a-f]{2})+", lambda found: str(_session(found[0])), text)


def _refuse(answer: httpx2.Response) -> None:
    if not answer.is_success:
        answer.read()
        try:
            error = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {}
        raise fault(answer.status_code, error.get("code"), error.get("message"))


@contextmanager
def _faults() -> Iterator[None]:
    """Says in our own errors what the client says in its."""
    try:
        yield
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        raise fault(error.status_code, body.get("code"), body.get("message")) from None
    except (openai.APIConnectionError, httpx2.TransportError) as error:
        cause = error.__cause__ or error
        raise GatewayLostError(f"The gateway does not answer: {cause or type(cause).__name__}") from None
    except openai.APIError as error:
        # An error within a stream: the gateway has given up waiting.
        raise fault(503, error.code, error.message) from None


_PENDING = "approval_pending"
_ADVICE = {
    "invalid_api_key": "The gateway does not take this token. It must be one of Kubernetes, for the gateway's "
    "audience: kubectl create token NAME --audience tenure. The token in a kubeconfig usually is for another audience; "
    "then act as a ServiceAccount with --as-serviceaccount NAME.",
    _PENDING: "On a terminal, kubectl tenure chat AGENT --session SESSION asks for it.",
    "session_stalled": "For more: kubectl tenure why SESSION",
    "session_not_ready": "For more: kubectl tenure why SESSION",
}


def fault(status: int, code: str | None, message: str | None) -> CliError:
    """The error for an answer of the gateway."""
    said = _named(message or f"The gateway answers {status}.")
    if code == "invalid_api_key":
        return NotAllowedError(_ADVICE[code])
    advice = _ADVICE.get(code or "")
    text = f"{said} {advice}" if advice else said
    if code == _PENDING:
        return ApprovalNeededError(text)
    if status in (401, 403):
        return NotAllowedError(text)
    if status == 404:
        return NotFoundError(text)
    if status in (408, 429) or status >= 500:
        return NotNowError(text)
    return CliError(text)

"""Another agent as a tool: a response over the gateway, in a session of its own.

The gateway derives session and turn from the idempotency key, so the same call finds the same response however often it
is made.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tenure_api.configuration import AgentConfig, ToolConfig
from tenure_api.tools import Replay
from tenure_sidecar.codec import decode, encode
from tenure_sidecar.errors import HttpError
from tenure_sidecar.http_client import Client, Once
from tenure_sidecar.tools.attempts import settled
from tenure_sidecar.tools.exchange import ANSWER_LIMIT, Request, sent
from tenure_sidecar.tools.failure import BusyError, DownError, ToolFailedError, UnansweredError
from tenure_sidecar.tools.source import Fixed
from tenure_sidecar.tools.tool import Attempt, Function, Json, Outcome

_PARAMETERS: Json = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "What to ask the agent. It knows nothing else of you."}},
    "required": ["input"],
    "additionalProperties": False,
}
_FIRST_POLL = 0.2
_SLOWEST_POLL = 2.0
_CANCEL_SECONDS = 3.0
_REQUEST_SECONDS = 30.0
_ERROR_LIMIT = 2_000
_PENDING = ("queued", "in_progress")


class AgentTool(Fixed):
    """A tool that is an agent."""

    def __init__(
        self, tool: ToolConfig, agent: AgentConfig, client: Client, gateway: Callable[[], str], token: Path
    ) -> None:
        """`gateway` is its base URL, without `/v1`; `token` is the file of the pod's token for it."""
        super().__init__(tool, "", _PARAMETERS, Replay.IDEMPOTENCY_KEY)
        self._agent = agent
        self._client = client
        self._gateway = gateway
        self._token = token

    async def call(self, function: Function, arguments: Json, attempt: Attempt) -> Outcome:
        """Ask the agent, and wait until it has answered. Raises `ToolFailedError`."""
        metadata = {
            "tenure.turn": attempt.turn,
            "tenure.step": str(attempt.step),
            "tenure.lifetime": str(self._agent.lifetime_seconds),
        }
        body = {"model": self._agent.model, "input": arguments["input"], "background": True, "metadata": metadata}
        seconds = self.tool.timeout_seconds
        end = asyncio.get_running_loop().time() + seconds
        response = await self._created(encode(body), attempt)
        if isinstance(response, Outcome):
            return response
        try:
            async with asyncio.timeout_at(end):
                return _outcome(await self._ended(response))
        except TimeoutError:
            await self._cancelled(response)
        return Outcome(f"The agent did not finish within {seconds} s; it was told to stop.", is_error=True)

    async def _created(self, body: bytes, attempt: Attempt) -> Json | Outcome:
        """The response, as it is after it was asked for; or why there is none."""
        found: list[Json] = []

        async def create(once: Once) -> Outcome:
            once.sent = True
            try:
                found.append(await self._asked("POST", "", body, attempt.key))
            except DownError as error:
                raise BusyError(str(error)) from error
            return Outcome("")

        failure = await settled(Replay.IDEMPOTENCY_KEY, attempt, self.tool.timeout_seconds, create)
        return found[0] if found else failure

    async def _ended(self, response: Json) -> Json:
        """The response when it has ended. What fails meanwhile is tried again. Raises `ToolFailedError`."""
        pause = _FIRST_POLL
        path = _path(response)
        while _pending(response):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_POLL)
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    response = await self._asked("GET", path)
            except (BusyError, DownError, UnansweredError, TimeoutError):
                continue
        return response

    async def _cancelled(self, response: Json) -> None:
        """Tell the agent to stop; if that fails, its session ends by its lifetime."""
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._asked("POST", f"{_path(response)}/cancel")
        except (ToolFailedError, TimeoutError):
            pass

    async def _asked(self, method: str, path: str, body: bytes = b"", key: str = "") -> Json:
        """What the gateway answers. Raises `ToolFailedError`."""
        gateway = self._gateway()
        if not gateway:
            raise DownError("The agent cannot be called: this session was not told where the gateway is.")
        headers = [("authorization", f"Bearer {self._bearer()}"), ("content-type", "application/json")]
        if key:
            headers.append(("idempotency-key", key))
        url = f"{gateway.rstrip('/')}/v1/responses{path}"
        response = await sent(self._client, Request(method, url, tuple(headers), body), None)
        try:
            said = await response.read_all(ANSWER_LIMIT)
        except HttpError as error:
            raise UnansweredError(f"The gateway's answer broke off: {error}.") from error
        finally:
            response.close()
        return _parsed(response.status, said)

    def _bearer(self) -> str:
        """The token, which the kubelet renews. Raises `DownError`."""
        try:
            return self._token.read_text().strip()
        except (OSError, ValueError):
            raise DownError("The agent cannot be called: the pod has no token for the gateway.") from None


def _path(response: Json) -> str:
    return "/" + quote(str(response.get("id")), safe="")


def _parsed(status: int, said: bytes) -> Json:
    try:
        answer = decode(said)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    why = str(error.get("message", ""))[:_ERROR_LIMIT] if isinstance(error, dict) else ""
    told = f"The agent cannot be called: the gateway answered {status}. {why}".strip()
    if status == 429 or status >= 500:
        raise BusyError(told)
    raise ToolFailedError(told)


def _pending(response: Json) -> bool:
    """Whether it may still be answered. One that waits for a person's approval is `incomplete` meanwhile."""
    return response.get("status") in _PENDING or (
        response.get("status") == "incomplete"
        and _detail(response, "incomplete_details", "reason") == "approval_required"
    )


def _outcome(response: Json) -> Outcome:
    text = "\n".join(_texts(response.get("output")))
    match response.get("status"):
        case "completed":
            return Outcome(text or "(The agent said nothing.)")
        case "incomplete":
            why = _detail(response, "incomplete_details", "reason")
            return Outcome(f"{text}\n(The agent's answer is incomplete: {why}.)".lstrip())
        case "cancelled":
            return Outcome("The agent was stopped before it had answered.", is_error=True)
    why = _detail(response, "error", "message")
    return Outcome(f"The agent failed: {why[:_ERROR_LIMIT] or json.dumps(response.get('status'))}", is_error=True)


def _detail(response: Json, field: str, name: str) -> str:
    details = response.get(field)
    return str(details.get(name, "")) if isinstance(details, dict) else ""


def _texts(output: Any) -> list[str]:
    """The text of each message."""
    found = []
    for item in output if isinstance(output, list) else []:
        if isinstance(item, dict) and item.get("type") == "message" and isinstance(item.get("content"), list):
            parts = [part for part in item["content"] if isinstance(part, dict) and part.get("type") == "output_text"]
            found.append("".join(str(part.get("text", "")) for part in parts))
    return [text for text in found if text]

"""The Responses API. https://platform.openai.com/docs/api-reference/responses."""

from collections.abc import Iterator

from tenure_api.configuration import ModelRoute
from tenure_api.wire import Usage
from tenure_sidecar.codec import encode
from tenure_sidecar.errors import GarbageError
from tenure_sidecar.proxy.chat import parsed
from tenure_sidecar.proxy.dialect import Json, Progress, StreamError, tokens
from tenure_sidecar.sse import Event

_ENDS = ("response.completed", "response.incomplete")
_PREAMBLE = (
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
)


class ResponsesAssembler:
    """The last event of a Responses stream holds the whole answer."""

    def __init__(self) -> None:
        self._answer: Json | None = None
        self._begun = False

    def feed(self, event: Event) -> Progress:
        """Take an event."""
        if event.data == b"[DONE]":  # not of this API, but sent by servers that grew out of the other one
            return Progress.END
        message = parsed(event)
        kind = message.get("type")
        if not isinstance(kind, str):
            raise GarbageError("an event of the stream has no type")
        if kind in ("error", "response.failed"):
            response = message.get("response")
            raise StreamError(encode(response) if isinstance(response, dict) else event.data)
        if kind in _ENDS:
            if not isinstance(message.get("response"), dict):
                raise GarbageError("the last event of the stream has no response")
            self._answer = message["response"]
            return Progress.FINAL
        self._begun = self._begun or kind not in _PREAMBLE
        return Progress.TOKEN if self._begun else Progress.PREAMBLE

    def answer(self) -> Json | None:
        """The whole response."""
        return self._answer

    def wanted(self, event: Event) -> bool:
        """Whether the agent asked for this event."""
        return event.data != b"[DONE]"


class Responses:
    """The Responses API."""

    path = "/responses"

    def completed(self, request: Json, route: ModelRoute) -> Json:
        """The request with the configured parameters where it sets none.

        The conversation is the journal's, so nothing is left with the vendor (`store`) unless the agent asks for it.
        """
        full = dict(request)
        for field, value in (
            ("temperature", route.temperature),
            ("top_p", route.top_p),
            ("max_output_tokens", route.max_output_tokens),
        ):
            if value is not None:
                full.setdefault(field, value)
        full.setdefault("store", False)
        return full

    def assembler(self, request: Json) -> ResponsesAssembler:
        """For the stream that answers this request."""
        return ResponsesAssembler()

    def is_answer(self, answer: object) -> bool:
        """Whether JSON is a whole response."""
        return isinstance(answer, dict) and isinstance(answer.get("output"), list)

    def usage(self, answer: Json) -> Usage:
        """The tokens that the response reports."""
        usage = answer.get("usage")
        return Usage(input_tokens=tokens(usage, "input_tokens"), output_tokens=tokens(usage, "output_tokens"))

    def replay(self, answer: Json, request: Json) -> Iterator[Event]:
        """The events of a response whose texts come in one piece each."""
        number = 0
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        events: list[Json] = [{"type": "response.created", "response": begun}]
        for place, item in enumerate(answer["output"]):
            events += _events_of(place, item if isinstance(item, dict) else {})
        last = "response.incomplete" if answer.get("status") == "incomplete" else "response.completed"
        events.append({"type": last, "response": answer})
        for number, event in enumerate(events):
            data = encode({**event, "sequence_number": number})
            yield Event(event["type"].encode(), data)


def _events_of(place: int, item: Json) -> list[Json]:
    """The events of one item of the output."""
    content = item.get("content") if item.get("type") == "message" else None
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    where: Json = {"item_id": item.get("id", ""), "output_index": place}
    added = {**item, "content": []} if parts else item
    events: list[Json] = [{"type": "response.output_item.added", "output_index": place, "item": added}]
    for index, part in enumerate(parts):
        at = {**where, "content_index": index}
        field = "refusal" if part.get("type") == "refusal" else "text"
        name = "response.refusal" if field == "refusal" else "response.output_text"
        text = part.get(field, "")
        events += [
            {"type": "response.content_part.added", **at, "part": {**part, field: ""}},
            {"type": f"{name}.delta", **at, "delta": text, "logprobs": []},
            {"type": f"{name}.done", **at, field: text, "logprobs": []},
            {"type": "response.content_part.done", **at, "part": part},
        ]
    return [*events, {"type": "response.output_item.done", "output_index": place, "item": item}]

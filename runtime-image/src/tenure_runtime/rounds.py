"""Answers of the model in the rounds of one turn, and the one chat completion that is made of them. Pure.

A round is one answer of the model and, if it asks for tools, their results. The answer of a round is the same whether
it came as the model spoke it, or all at once from the sidecar's record: then the next request is the same too.
"""

from typing import Any

from tenure_runtime.errors import ModelError

Json = dict[str, Any]

_CUT_SHORT = ("length", "content_filter")
"""Reasons for which an answer ends before its end. Calls in it may be halves of calls, so they are not made."""
_ASKS_FOR_TOOLS = ("tool_calls", "function_call")
_NEVER_PASSED_OUT = ("role", *_ASKS_FOR_TOOLS)


class Call:
    """A call that the model asks for."""

    def __init__(self) -> None:
        self.id = ""
        self._name: list[str] = []
        self._arguments: list[str] = []
        self._more: Json = {}

    def take(self, entry: Json) -> None:
        """Takes a part of it. Fields that only the vendor knows are kept, since it may want them back."""
        for key, value in entry.items():
            if key == "id" and isinstance(value, str):
                self.id = value or self.id
            elif key not in ("id", "index", "function") and value is not None:
                self._more[key] = value
        function = entry.get("function")
        if isinstance(function, dict):
            for field, parts in (("name", self._name), ("arguments", self._arguments)):
                if isinstance(function.get(field), str):
                    parts.append(function[field])

    @property
    def name(self) -> str:
        """The function's name."""
        return well_formed("".join(self._name))

    @property
    def arguments(self) -> str:
        """As the model wrote them, whether they are JSON or not."""
        return well_formed("".join(self._arguments))

    def entry(self) -> Json:
        """As an entry of `tool_calls`."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", **self._more, "function": function}


class Round:
    """One answer of the model, put together from its chunks. Of several choices only the first counts."""

    def __init__(self, number: int) -> None:
        """`number` counts the rounds of the turn from 0."""
        self._number = number
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, Call] = {}
        self._last: Call | None = None
        self.finish_reason: str | None = None
        """None until the answer is complete."""
        self.usage: Json | None = None

    def take(self, chunk: object) -> Json | None:
        """Takes a chunk and returns it with its first choice alone; None if it has none.

        Raises `ModelError` if it is no chunk.
        """
        if not isinstance(chunk, dict):
            raise ModelError.broken("the model sent an event that is no JSON object")
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        choice = _first_choice(chunk.get("choices"))
        if choice is None:
            return None
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"] or self.finish_reason
        delta = choice["delta"] if isinstance(choice.get("delta"), dict) else {}
        self._take(delta)
        return {**chunk, "choices": [{**choice, "delta": delta}]}

    def calls(self) -> list[Call]:
        """The calls that are to be made, in their order. Each has an id of its own in this answer."""
        if self.finish_reason in _CUT_SHORT:
            return []
        calls = [self._calls[place] for place in sorted(self._calls)]
        taken: set[str] = set()
        for n, call in enumerate(calls):
            call.id = call.id or f"call_{self._number}_{n}"
            while call.id in taken:
                call.id += "_"
            taken.add(call.id)
        return calls

    def message(self) -> Json:
        """The assistant message that says what the model answered and asked for.

        `reasoning_content` is what several vendors call the model's thoughts. Some of their endpoints refuse calls
        without the thoughts that led to them.
        """
        message: Json = {"role": "assistant", "content": well_formed("".join(self._texts)) or None}
        if self._reasoning:
            message["reasoning_content"] = well_formed("".join(self._reasoning))
        message["tool_calls"] = [call.entry() for call in self.calls()]
        return message

    def _take(self, delta: Json) -> None:
        for field, parts in (("content", self._texts), ("reasoning_content", self._reasoning)):
            if isinstance(delta.get(field), str) and delta[field]:
                parts.append(delta[field])
        entries = delta.get("tool_calls")
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                raise ModelError.broken("the model sent a tool call that is no JSON object")
            self._call_of(entry).take(entry)

    def _call_of(self, entry: Json) -> Call:
        """The call that a part belongs to.

        `index` says so. Some endpoints leave it out, or send 0 with every call: then a new id begins a new call.
        """
        place = entry.get("index")
        call = self._calls.get(place) if isinstance(place, int) else self._last
        if call is None or (entry.get("id") and call.id and entry["id"] != call.id):
            free = max(self._calls, default=-1) + 1
            call = Call()
            self._calls[place if isinstance(place, int) and place not in self._calls else free] = call
        self._last = call
        return call


class Completion:
    """The chat completion that comes out: the text of all rounds, and how the last one ended."""

    def __init__(self) -> None:
        self._head: Json = {}
        self._fields: dict[str, str] = {"content": ""}
        self._usage: Json | None = None

    def add(self, chunk: Json) -> Json | None:
        """Takes what `Round.take` returned; returns the chunk to pass on, if there is anything in it to pass on."""
        first = not self._head
        if first:
            self._head = {key: value for key, value in chunk.items() if key not in ("choices", "usage")}
        (choice,) = chunk["choices"]
        delta = {key: value for key, value in choice["delta"].items() if key not in _NEVER_PASSED_OUT}
        for key, value in delta.items():
            if isinstance(value, str):
                self._fields[key] = self._fields.get(key, "") + value
        if first:
            delta = {"role": "assistant", **delta}
        elif not any(delta.values()):
            return None
        more = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        return self._chunk({"index": 0, "delta": delta, **more, "finish_reason": None})

    def count(self, usage: Json | None) -> None:
        """Adds the usage of a round."""
        if usage is not None:
            self._usage = usage if self._usage is None else _sum(self._usage, usage)

    def last_chunks(self, reason: str, usage_wanted: bool) -> list[Json]:
        """The chunks that end the stream."""
        chunks = [self._chunk({"index": 0, "delta": {}, "finish_reason": _outward(reason)})]
        if usage_wanted and self._usage is not None:
            chunks.append({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage})
        return chunks

    def whole(self, reason: str) -> Json:
        """The completion as one document."""
        message = {"role": "assistant", **{key: well_formed(text) for key, text in self._fields.items()}}
        choice = {"index": 0, "message": message, "finish_reason": _outward(reason), "logprobs": None}
        document = {**self._head, "object": "chat.completion", "choices": [choice]}
        return document if self._usage is None else {**document, "usage": self._usage}

    def _chunk(self, choice: Json) -> Json:
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def well_formed(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can carry and UTF-8 cannot; whole pairs are joined."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_chunk(completion: object) -> Json:
    """A whole completion as one chunk of a stream. Raises `ModelError` if it is none."""
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(completion, dict) or not isinstance(choices, list):
        raise ModelError.broken("the answer of the model is not a chat completion")
    delivered = [
        {**choice, "delta": _as_delta(choice.get("message")), "finish_reason": choice.get("finish_reason") or "stop"}
        for choice in choices
        if isinstance(choice, dict)
    ]
    return {**completion, "choices": delivered}


def _as_delta(message: object) -> object:
    """A whole message as a delta, where each call must say its place."""
    match message:
        case {"tool_calls": [*entries], **fields}:
            placed = [{**e, "index": n} if isinstance(e, dict) else e for n, e in enumerate(entries)]
            return {**fields, "tool_calls": placed}
    return message


def _first_choice(choices: object) -> Json | None:
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def _outward(reason: str) -> str:
    """Calls are never passed out, so neither is a reason that announces them."""
    return "stop" if reason in _ASKS_FOR_TOOLS else reason


def _sum(one: Json, other: Json) -> Json:
    """The numbers of both, added, also those of nested objects."""
    total = dict(one)
    for key, value in other.items():
        known = total.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            total[key] = _sum(known, value)
        elif isinstance(known, int | float) and isinstance(value, int | float):
            total[key] = known + value
        elif known is None:
            total[key] = value
    return total

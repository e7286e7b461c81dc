"""Server-sent events."""

import pydantic_core

from tenure_gateway.openai.errors import Json


def event(data: Json) -> bytes:
    """An event that is named by its `type`, as the Responses API sends them."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), pydantic_core.to_json(data))


def data(value: Json) -> bytes:
    """An event without a name, as Chat Completions sends them."""
    return b"data: %b\n\n" % pydantic_core.to_json(value)

"""Sessions as conversations, and their transcripts as items."""

from collections.abc import Mapping
from dataclasses import dataclass

from tenure_api.wire import ItemPage
from tenure_gateway.directory import SessionView
from tenure_gateway.ids import conversation_id
from tenure_gateway.openai import body as read
from tenure_gateway.openai import paging
from tenure_gateway.openai.errors import Json, invalid
from tenure_gateway.openai.items import item

AGENT = "agent"
"""Key of the metadata that says which agent a new conversation is with."""

_KNOWN = frozenset({"metadata"})
_WITHOUT_EFFECT = {
    "items": read.Unsupported("Send them as the input of the conversation's first response.", ([],)),
}
_HINTS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class NewConversation:
    """A conversation to create: with whom, and the rest of its metadata."""

    agent: str
    metadata: dict[str, str]


def parse(body: Json) -> NewConversation:
    """The body of `POST /v1/conversations`. Raises `ApiError`."""
    read.refuse_others(body, _KNOWN, _WITHOUT_EFFECT, _HINTS)
    metadata = dict(read.metadata(body))
    agent = metadata.pop(AGENT, None)
    if agent is None:
        message = (
            'A conversation is held with one agent: write "metadata": {"agent": "namespace/name"}, '
            "with an id that GET /v1/models lists."
        )
        raise invalid(message, "metadata.agent", "missing_required_parameter")
    return NewConversation(agent, metadata)


def conversation(session: SessionView) -> Json:
    """A session."""
    return {
        "id": conversation_id(session.key),
        "object": "conversation",
        "created_at": session.created,
        "metadata": {**session.metadata, AGENT: str(session.agent)},
    }


def deleted(session: SessionView) -> Json:
    """A session that is no more."""
    return {"id": conversation_id(session.key), "object": "conversation.deleted", "deleted": True}


def page_query(query: Mapping[str, str]) -> dict[str, str]:
    """The query of a page of items, for the sidecar. Raises `ApiError`."""
    page = paging.parse(query)
    after = {} if page.after is None else {"after": page.after}
    return {"limit": str(page.limit), "order": "desc" if page.newest_first else "asc", **after}


def items(page: ItemPage) -> Json:
    """A page of the transcript."""
    data = [item(entry) for entry in page.data]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else "",
        "last_id": data[-1]["id"] if data else "",
        "has_more": page.has_more,
    }

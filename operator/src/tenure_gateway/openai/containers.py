"""Workspaces of sessions as containers, and their files."""

from tenure_api.wire import File
from tenure_gateway.directory import SessionView
from tenure_gateway.ids import container_id, file_id
from tenure_gateway.openai.errors import Json, invalid
from tenure_gateway.openai.input import UPLOADS
from tenure_gateway.openai.paging import Page

_ROOT = "/workspace/"


def container(session: SessionView) -> Json:
    """The workspace of a session. It lives as long as the session."""
    return {
        "id": container_id(session.key),
        "object": "container",
        "created_at": session.created,
        "name": str(session.key),
        "status": "running",
        "expires_after": None,
        "last_active_at": None,
    }


def file(session: SessionView, entry: File) -> Json:
    """A file. OpenAI's files have one time, which is called that of their creation.

    Nobody notes who wrote a file: what is where input is put is taken for the user's, the rest for the agent's.
    """
    return {
        "id": file_id(entry.path),
        "object": "container.file",
        "container_id": container_id(session.key),
        "created_at": int(entry.modified_at.timestamp()),
        "bytes": entry.size,
        "path": f"{_ROOT}{entry.path}",
        "source": "user" if entry.path.startswith(f"{UPLOADS}/") else "assistant",
    }


def deleted(identifier: str) -> Json:
    """A file that is no more."""
    return {"id": identifier, "object": "container.file.deleted", "deleted": True}


def listing(session: SessionView, entries: list[File], more: bool, page: Page) -> Json:
    """A page of the files, by time and then by path. Raises `ApiError`.

    `more`: the session has more files than these.
    """
    order = sorted(entries, key=lambda entry: (entry.modified_at, entry.path), reverse=page.newest_first)
    if page.after is not None:
        ids = [file_id(entry.path) for entry in order]
        if page.after not in ids:
            raise invalid("'after' must be the id of a file that is there.", "after")
        order = order[ids.index(page.after) + 1 :]
    data = [file(session, entry) for entry in order[: page.limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else "",
        "last_id": data[-1]["id"] if data else "",
        "has_more": len(order) > page.limit or (more and not data),
    }


def path_of(filename: str) -> str:
    """The path in the workspace that an uploaded file's name means."""
    return filename.removeprefix(_ROOT)

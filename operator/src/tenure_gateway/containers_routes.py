"""`/v1/containers`: the workspaces of sessions, and their files."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenure_gateway import ids
from tenure_gateway.access import Caller
from tenure_gateway.directory import SessionView
from tenure_gateway.faults import TurnRefused
from tenure_gateway.front import Download, json_response
from tenure_gateway.openai import containers, paging
from tenure_gateway.openai.errors import ApiError, invalid, not_found
from tenure_gateway.upload import FIELD, Upload
from tenure_gateway.visitors import Visitors
from tenure_gateway.workspaces import Workspaces


class ContainersRoutes:
    """The routes of workspaces."""

    def __init__(self, visitors: Visitors, workspaces: Workspaces) -> None:
        self._visitors = visitors
        self._workspaces = workspaces

    def table(self) -> list[Route]:
        """The routes."""
        where = "/v1/containers/{container}"
        return [
            Route(where, self.container, methods=["GET"]),
            Route(f"{where}/files", self.list_files, methods=["GET"]),
            Route(f"{where}/files", self.create_file, methods=["POST"]),
            Route(f"{where}/files/{{file}}", self.retrieve_file, methods=["GET"]),
            Route(f"{where}/files/{{file}}", self.delete_file, methods=["DELETE"]),
            Route(f"{where}/files/{{file}}/content", self.content, methods=["GET"]),
        ]

    async def container(self, request: Request) -> Response:
        """`GET /v1/containers/{id}`."""
        session, _ = await self._named(request)
        return json_response(containers.container(session))

    async def list_files(self, request: Request) -> Response:
        """`GET /v1/containers/{id}/files`."""
        page = paging.parse(request.query_params)
        session, caller = await self._named(request)
        found = await self._workspaces.listing(session.key, caller)
        return json_response(containers.listing(session, found.data, found.has_more, page))

    async def create_file(self, request: Request) -> Response:
        """`POST /v1/containers/{id}/files`: a file from a form. One of the same path is replaced."""
        session, caller = await self._named(request)
        upload = Upload(request.headers.get("content-type", ""), request.stream())
        path = containers.path_of(await upload.filename())
        if not ids.is_path(path):
            raise invalid("The file's name must be a path relative to the workspace, without '..'.", FIELD)
        try:
            written = await self._workspaces.put(session.key, caller, path, upload)
        except TurnRefused as refused:
            if refused.code == "invalid_path":
                raise invalid(f"{refused.message}.", FIELD) from None
            raise
        return json_response(containers.file(session, written))

    async def retrieve_file(self, request: Request) -> Response:
        """`GET /v1/containers/{id}/files/{file}`."""
        session, caller = await self._named(request)
        path = _path(request)
        found = await self._workspaces.listing(session.key, caller)
        entry = next((entry for entry in found.data if entry.path == path), None)
        if entry is None:
            raise _missing(request)
        return json_response(containers.file(session, entry))

    async def delete_file(self, request: Request) -> Response:
        """`DELETE /v1/containers/{id}/files/{file}`."""
        session, caller = await self._named(request)
        try:
            await self._workspaces.delete(session.key, caller, _path(request))
        except TurnRefused as refused:
            raise (_missing(request) if refused.status == 404 else refused) from None
        return json_response(containers.deleted(request.path_params["file"]))

    async def content(self, request: Request) -> Response:
        """`GET /v1/containers/{id}/files/{file}/content`."""
        session, caller = await self._named(request)
        try:
            return Download(await self._workspaces.content(session.key, caller, _path(request)))
        except TurnRefused as refused:
            raise (_missing(request) if refused.status == 404 else refused) from None

    async def _named(self, request: Request) -> tuple[SessionView, Caller]:
        """The session that the path names, and in whose name it is asked."""
        caller = await self._visitors.caller(request)
        return await self._visitors.container(caller, request.path_params["container"]), caller


def _path(request: Request) -> str:
    path = ids.parse_file(request.path_params["file"])
    if path is None:
        raise _missing(request)
    return path


def _missing(request: Request) -> ApiError:
    return not_found("File", request.path_params["file"])

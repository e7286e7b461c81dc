"""Reads the file of a multipart form as it comes: nothing of it is kept here."""

from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tenure_gateway.openai.errors import ApiError, invalid, unsupported

MAX_FILE = 32 * 1024 * 1024
"""Most bytes of a file, as in the sidecar."""
_MAX_REST = 65_536
"""Most bytes of the form besides the file."""
FIELD = "file"


class Upload:
    """A form with one file. `body` is the body of the request, bit by bit."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise unsupported("file_id", "Send the file itself, as the field 'file' of a form (multipart/form-data).")
        self._body = body
        self._headers: dict[str, str] = {}
        self._name, self._value = b"", b""
        self._filename: str | None = None
        self._reading = False
        self._parts: list[bytes] = []
        self._size = self._total = 0
        self.begun = False
        """Whether something of the file has been handed out."""
        self.failure: ApiError | None = None
        """Why reading ended before the end of the file."""
        callbacks: Any = {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }
        self._complete = False
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _malformed(error) from None

    async def filename(self) -> str:
        """The name of the file, as soon as it is known. Raises `ApiError`."""
        while self._filename is None:
            if not await self._read():
                message = "'file' is missing: send the file as this field of the form."
                raise invalid(message, FIELD, "missing_required_parameter")
        return self._filename

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file. What goes wrong is raised, and also kept as `failure`: who asks may see another error instead."""
        try:
            while True:
                parts, self._parts = self._parts, []
                for part in parts:
                    self.begun = True
                    yield part
                if not parts and not await self._read():
                    return
        except ApiError as error:
            self.failure = error
            raise

    async def _read(self) -> bool:
        """Reads on; False at the end of the form. Raises `ApiError`."""
        if self._complete:
            return False
        try:
            data = await anext(self._body)
            self._total += len(data)
            self._parser.write(data)
        except StopAsyncIteration:
            raise _malformed("it ends too early") from None
        except FormParserError as error:
            raise _malformed(error) from None
        if self._size > MAX_FILE or self._total > MAX_FILE + _MAX_REST:
            raise ApiError(413, "file_too_large", f"A file must have at most {MAX_FILE} bytes.", FIELD)
        return True

    # --- what the parser calls -----------------------------------------------------------------------------------

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"filename")
        if options.get(b"name") == FIELD.encode() and name is not None and self._filename is None:
            # Browsers and the official client write a quotation mark in a name like this.
            self._filename = name.decode(errors="replace").replace("%22", '"')
            self._reading = True

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._reading:
            self._size += end - start
            self._parts.append(data[start:end])

    def _part_end(self) -> None:
        self._reading = False

    def _end(self) -> None:
        self._complete = True


def _malformed(error: object) -> ApiError:
    return invalid(f"The form cannot be read: {error}.", None, "invalid_form")

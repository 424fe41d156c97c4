"""Reads multipart/form-data as it arrives: the bytes of the file are passed on and never kept.

Starlette's own form would first write the whole file to a disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from tussis.shared.errors import RequestInvalid

#: Largest number of fields beside the file, and the bytes of one.
_MAX_FIELDS: Final = 64
_MAX_FIELD_BYTES: Final = 128 * 1024


class MultipartUpload:
    """One request with one file. Iterate over :meth:`chunks` first: then :attr:`fields` has all other fields.

    ``file_field`` is the name of the file's field. Other files are an error. Raises :class:`RequestInvalid`, and what
    ``body`` raises.
    """

    def __init__(self, content_type: str, body: AsyncIterator[bytes], file_field: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise RequestInvalid("the header Content-Type must be multipart/form-data with a boundary")
        self.fields: dict[str, str] = {}
        """The fields read so far. Those that come before the file are known when :meth:`begin` returns."""
        self.file_name: str | None = None
        self._body = body
        self._file_field = file_field
        self._pending: deque[bytes] = deque()
        self._header = self._value = b""
        self._disposition = b""
        self._in_file = self._found = self._ended = False
        self._field = ""
        self._text = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise RequestInvalid(f"the boundary of the multipart body is wrong: {error}") from None

    async def begin(self) -> bool:
        """Read up to the file. False if the body has none."""
        while not self._found and await self._read():
            pass
        return self._found

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file; then the rest of the body is read."""
        while True:
            while self._pending:
                yield self._pending.popleft()
            if not await self._read():
                break
        while self._pending:
            yield self._pending.popleft()

    async def _read(self) -> bool:
        """Parse the next bytes of the body. False at its end."""
        chunk = await anext(self._body, None)
        if chunk is None:
            if not self._ended:
                raise RequestInvalid("the multipart body is incomplete: its last boundary is missing")
            return False
        try:
            if chunk:
                self._parser.write(chunk)
        except FormParserError as error:
            raise RequestInvalid(f"the multipart body is wrong: {error}") from None
        return True

    def _part_begins(self) -> None:
        self._disposition = b""
        self._header = self._value = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._in_file = name == self._file_field
        if self._in_file:
            if self._found:
                raise RequestInvalid(f"the field {self._file_field} is there twice: send one recording in a request")
            self._found = True
            file_name = options.get(b"filename")
            self.file_name = None if file_name is None else file_name.decode("utf-8", "replace")
            return
        if b"filename" in options:
            raise RequestInvalid(f"the body has a file in the field {name!r}: send it as {self._file_field}")
        if name in self.fields or len(self.fields) >= _MAX_FIELDS:
            raise RequestInvalid(f"the body has the field {name!r} twice, or more than {_MAX_FIELDS} fields")
        self._field = name
        self._text.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pending.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _MAX_FIELD_BYTES:
            raise RequestInvalid(f"the field {self._field!r} has more than {_MAX_FIELD_BYTES} bytes")

    def _part_ends(self) -> None:
        if not self._in_file:
            try:
                self.fields[self._field] = self._text.decode("utf-8")
            except UnicodeDecodeError:
                raise RequestInvalid(f"the field {self._field!r} is not UTF-8") from None
        self._in_file = False

    def _end(self) -> None:
        self._ended = True

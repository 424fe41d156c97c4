"""Multipart bodies as they arrive, in pieces of every size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.shared.errors import RequestInvalid
from tussis.worker.gateway.multipart import MultipartUpload

CONTENT_TYPE = "multipart/form-data; boundary=B"


def body_of(data: bytes, before: dict[str, str], behind: dict[str, str], file_name: str = "a.wav") -> bytes:
    def fields(given: dict[str, str]) -> bytes:
        return b"".join(
            f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in given.items()
        )

    file = f'--B\r\nContent-Disposition: form-data; name="audio"; filename="{file_name}"\r\n\r\n'.encode()
    return fields(before) + file + data + b"\r\n" + fields(behind) + b"--B--\r\n"


def read(body: bytes, size: int, content_type: str = CONTENT_TYPE) -> tuple[bytes, MultipartUpload]:
    """The file of a body that comes in pieces of a size."""

    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(body), size):
            yield body[first : first + size]

    async def all_of_it() -> tuple[bytes, MultipartUpload]:
        upload = MultipartUpload(content_type, pieces(), "audio")
        if not await upload.begin():
            raise RequestInvalid("no file")
        return b"".join([chunk async for chunk in upload.chunks()]), upload

    return asyncio.run(all_of_it())


@given(
    data=st.binary(max_size=300),
    value=st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20),
    size=st.integers(1, 400),
)
def test_the_file_and_the_fields_are_those_of_the_body(data: bytes, value: str, size: int) -> None:
    if b"\r\n--B" in b"\r\n" + data:
        return
    found, upload = read(body_of(data, {"a": value}, {"b": value}), size)

    assert (found, upload.fields, upload.file_name) == (data, {"a": value, "b": value}, "a.wav")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (body_of(b"x", {}, {})[:-6], "incomplete"),
        (b"", "incomplete"),
        (b"nonsense", "wrong"),
        (b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--\r\n', "no file"),
        (body_of(b"x", {}, {}).replace(b"--B--\r\n", b"") + body_of(b"y", {}, {}), "twice"),
        (body_of(b"x", {"a": "1"}, {"a": "2"}), "twice"),
        (body_of(b"x", {str(number): "1" for number in range(65)}, {}), "more than 64"),
        (body_of(b"x", {"a": "1" * 200_000}, {}), "more than 131072 bytes"),
        (body_of(b"x", {}, {}).replace(b'name="audio"', b'name="file"'), "send it as audio"),
        (body_of(b"x", {"a": "A"}, {}).replace(b"\r\nA\r\n", b"\r\n\xff\r\n"), "not UTF-8"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_wrong_body_is_refused(body: bytes, part: str, size: int) -> None:
    if size == 1 and len(body) > 10_000:
        size = 1000
    with pytest.raises(RequestInvalid, match=part):
        read(body, size)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=", "text/plain"])
def test_a_wrong_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(RequestInvalid, match="Content-Type"):
        read(b"x", 1, content_type)

"""Searches everything that a deployment keeps for texts: every table, the planner's statistics, every broker key."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

_BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")


def in_database(url: str, needles: Sequence[str]) -> list[str]:
    """Return the tables whose rows, as text, contain one of the needles."""
    found = []
    with psycopg.connect(url) as connection:
        relations = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        ).fetchall()
        for (name,) in [*relations, ("pg_stats",)]:
            rows = sql.SQL("SELECT one::text FROM {} AS one").format(sql.Identifier(name))
            if any(needle in row for (row,) in connection.execute(rows) for needle in _forms(needles)):
                found.append(name)
    return found


def in_broker(client: Any, needles: Sequence[str]) -> list[str]:
    """Return the keys whose name or content, also inside Base64, contains one of the needles."""
    return [
        key.decode() for key in client.scan_iter(count=1000) if any(_has(text, needles) for text in _texts(client, key))
    ]


def in_files(folder: Path, needles: Sequence[str]) -> list[str]:
    """Return the files whose bytes, also inside Base64, contain one of the needles."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if _has(path.read_bytes(), needles)]


def _has(data: bytes, needles: Sequence[str]) -> bool:
    return any(form.encode() in text for text in (data, *_decoded(data)) for form in _forms(needles))


def _forms(needles: Sequence[str]) -> set[str]:
    return {form for needle in needles for form in (needle, json.dumps(needle)[1:-1])}


def _decoded(data: bytes) -> Iterator[bytes]:
    for part in _BASE64.findall(data):
        try:
            yield base64.b64decode(part + b"=" * (-len(part) % 4))
        except binascii.Error:
            continue


def _texts(client: Any, key: bytes) -> Iterator[bytes]:
    yield key
    match client.type(key):
        case b"string":
            yield client.get(key) or b""
        case b"hash":
            for field, value in client.hscan_iter(key):
                yield from (field, value)
        case b"list":
            yield from client.lrange(key, 0, -1)
        case b"set":
            yield from client.sscan_iter(key)
        case b"zset":
            yield from (member for member, _ in client.zscan_iter(key))
        case b"stream":
            for _, fields in client.xrange(key):
                yield from (value for value in fields.values())
            yield client.dump(key) or b""

"""The requests of the old backend's app: the native one, and the one in a browser. A script for another process too.

python -m tests.support.old_client URL FILE [native|web] [THRESHOLD]
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True)
class OldReply:
    """What the app sees."""

    status: int
    body: dict[str, Any]
    headers: httpx.Headers

    @property
    def shown_error(self) -> str | None:
        """The text that the app shows if the status is not 2xx."""
        error = None if 200 <= self.status < 300 else self.body["error"]
        assert error is None or isinstance(error, str)
        return error


def post(
    url: str,
    data: bytes,
    *,
    web: bool = False,
    threshold: str | None = None,
    file_name: str = "recording-1732900000.m4a",
    headers: dict[str, str] | None = None,
    timeout_s: float = 60.0,
) -> OldReply:
    """Post a recording as the app does. The native app sends no headers of its own."""
    known = {"Accept": "application/json", "Origin": "https://app.example"} if web else {"Accept": "*/*"}
    fields = None if threshold is None else {"threshold": threshold}
    kind = "audio/webm" if web else "audio/m4a"
    reply = httpx.post(
        f"{url}/api/detect-cough",
        files={"audio": (file_name, data, kind)},
        data=fields,
        headers=known | (headers or {}),
        timeout=timeout_s,
    )
    return OldReply(reply.status_code, reply.json(), reply.headers)


def main() -> None:
    """Post one file, and print the status and the answer as one JSON object."""
    url, path, *more = sys.argv[1:]
    reply = post(
        url,
        Path(path).read_bytes(),
        web=more[:1] == ["web"],
        threshold=more[1] if len(more) > 1 else None,
        file_name=Path(path).name,
    )
    sys.stdout.write(json.dumps({"status": reply.status, "body": reply.body}) + "\n")


if __name__ == "__main__":
    main()

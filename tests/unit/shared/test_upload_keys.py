"""The key of an uploaded recording."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from tussis.shared.uploads import new_key

NOW = datetime(2026, 11, 9, 23, 59, tzinfo=UTC)
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    ("file_name", "extension"),
    [
        ("recording.wav", ".wav"),
        ("recording-1699999999.M4A", ".m4a"),
        ("a.b.ogg", ".ogg"),
        (None, ""),
        ("", ""),
        ("recording", ""),
        (".wav", ""),
        ("recording.", ""),
        ("a.wav/../../etc/passwd", ""),
        ("a.w v", ""),
        ("a.wav\n", ""),
        ("a.ünicode", ""),
        ("a.extension1", ""),
    ],
)
def test_the_key_has_the_date_a_random_id_and_a_safe_extension(file_name: str | None, extension: str) -> None:
    key = new_key("uploads/", file_name, NOW)
    assert re.fullmatch(rf"uploads/2026/11/09/{UUID}{re.escape(extension)}", key)


def test_two_uploads_of_one_file_have_different_keys() -> None:
    assert new_key("", "a.wav", NOW) != new_key("", "a.wav", NOW)


def test_the_clients_file_name_is_not_in_the_key() -> None:
    assert "smith" not in new_key("uploads/", "smith.wav", NOW)

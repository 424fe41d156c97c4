"""The standard streams of a command let nothing through that controls a terminal, except what Tussis writes itself."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys

import pytest

from tussis.producer.streams import GuardedStream
from tussis.shared.text import UNSAFE, json_line

#: Sets the title of the window, moves in the line, ends it in three ways, turns the writing direction.
NASTY = "a\x1b]0;evil\x07\x08\x7f\x9b31m\x85\u2028\u202eb"
SAFE = r"a\u001b]0;evil\u0007\u0008\u007f\u009b31m\u0085\u2028\u202eb"
PROGRAM = "import sys; from tussis.producer.streams import open_streams; open_streams(); sys.{}.write({!a}); "


class _Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stream_escapes_what_controls_a_terminal(terminal: bool) -> None:
    buffer = _Terminal() if terminal else io.BytesIO()
    stream = GuardedStream(buffer, "utf-8", errors="backslashreplace", newline="")
    ours = "\r\x1b[K\x1b[31mred\x1b[0m" if terminal else "a,b\r\n"

    assert stream.write(f"{NASTY}\tü\n{ours}\udcff") == len(NASTY) + len(ours) + 4
    stream.flush()

    assert buffer.getvalue().decode() == f"{SAFE}\tü\n{ours}" + r"\udcff"


def test_what_is_not_for_a_terminal_has_no_sequence_at_all() -> None:
    buffer = io.BytesIO()
    stream = GuardedStream(buffer, "utf-8")
    stream.write("\x1b[2J\r")
    stream.flush()
    assert buffer.getvalue() == rb"\u001b[2J\u000d"


def test_json_keeps_its_value() -> None:
    text = json.dumps({"uri": NASTY}, ensure_ascii=False)
    assert UNSAFE.search(text)
    assert not UNSAFE.search(json_line(text))
    assert json.loads(json_line(text)) == {"uri": NASTY}


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_the_streams_of_a_command_are_guarded_on_a_terminal(name: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM.format(name, NASTY + "\x1b[Kx\n")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **{name: theirs}) as process:  # type: ignore[call-overload]
        os.close(theirs)
        shown = b""
        while not shown.endswith(b"\n"):
            shown += os.read(ours, 1000)
        assert process.wait(60) == 0
    os.close(ours)
    assert shown.decode() == SAFE + "\x1b[Kx\r\n"

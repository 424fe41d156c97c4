"""What code in the decoder process cannot do. Without the lock it can."""

from __future__ import annotations

import errno
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import jailed
from tests.unit.audio.jail.conftest import Make
from tussis.shared.errors import NotAudio
from tussis.worker.audio.jail.decoder import JailedDecoder
from tussis.worker.audio.limits import Limits

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls of x86-64")


@pytest.fixture(scope="module")
def attacker() -> Iterator[JailedDecoder]:
    one = JailedDecoder(Limits(), tries=1, entry=jailed.entry("escape"))
    yield one
    one.close()


def attempt(jail: JailedDecoder, order: str) -> str:
    with pytest.raises(NotAudio) as told:
        jail.decode(order.encode())
    return str(told.value)


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def orders(port: int, folder: Path) -> list[str]:
    secret = folder / "secret"
    secret.write_text("secret")
    return [
        f"open {secret}",
        f"open /proc/{os.getpid()}/environ",
        "open /proc/self/maps",
        f"create {folder / 'new'}",
        f"list {folder}",
        f"stat {secret}",
        f"connect {port}",
        "socket",
        "socketpair",
        "fork",
        f"signal {os.getpid()}",
        "print",
        "executable",
        "limits",
    ]


def test_no_file_no_address_no_process(attacker: JailedDecoder, listening: int, tmp_path: Path) -> None:
    for order in [*orders(listening, tmp_path), "execve /bin/true", "make-executable", f"unlink {tmp_path / 'secret'}"]:
        assert attempt(attacker, order) in (f"errno {errno.EPERM}", f"errno {errno.EACCES}"), order
    assert (tmp_path / "secret").read_text() == "secret"


def test_the_same_attempts_succeed_without_the_lock(jail: Make, listening: int, tmp_path: Path) -> None:
    free = jail("unlocked")
    for order in orders(listening, tmp_path):
        assert attempt(free, order).startswith("done: "), order


@pytest.mark.parametrize("name", sorted(jailed._RAW))
def test_no_other_system_call(attacker: JailedDecoder, name: str) -> None:
    expected = errno.ENOSYS if name == "clone3" else errno.EPERM
    assert attempt(attacker, name) == f"errno {expected}"


def test_threads_start(attacker: JailedDecoder) -> None:
    """PyAV's resampler starts some."""
    assert attempt(attacker, "thread") == "done: None"


def test_it_has_no_secrets(jail: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_DATABASE_URL", "postgresql://tussis:secret@db/tussis")
    inherited = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        one = jail("escape")
        told = attempt(one, "environment")
        assert "TUSSIS" not in told
        assert "PATH" not in told.replace("PYTHONPATH", "").replace("LD_LIBRARY_PATH", "")
        # The socket and the recording's bytes.
        assert len(attempt(one, "descriptors").split(",")) == 2
    finally:
        os.close(inherited)


def test_the_bytes_of_a_recording_are_gone_after_it(jail: Make) -> None:
    one = jail("escape")
    attempt(one, "environment")
    assert one._process is not None
    assert os.fstat(one._process._objects).st_size == 0

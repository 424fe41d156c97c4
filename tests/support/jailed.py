"""Decoder processes with another decoder, as an attacker would have it who has taken one over.

The decoder gets the bytes of the "recording" as its orders. It has the door of the real process behind it.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401 - for an address; behind the closed door it cannot be loaded
import mmap
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tussis.shared.errors import NotAudio

ROOT: Final = Path(__file__).parents[2]
MARKER: Final = b"FAULT:jail-"
#: Numbers of system calls that Python has no function for, on x86-64.
_RAW: Final = {
    "ptrace": 101, "process_vm_readv": 310, "io_uring_setup": 425, "bpf": 321, "perf_event_open": 298,
    "userfaultfd": 323, "openat2": 437, "pidfd_open": 434, "keyctl": 250, "add_key": 248, "unshare": 272,
    "mount": 165, "clone3": 435, "seccomp": 317, "open_by_handle_at": 304, "execveat": 322, "memfd_create": 319,
    "finit_module": 313, "kexec_load": 246, "tgkill": 234, "pkey_mprotect": 329, "personality": 135, "prctl": 157,
    "sendmsg": 46, "ftruncate": 77, "fcntl": 72, "dup": 32, "write": 1, "pwrite64": 18, "ioctl": 16, "setuid": 105,
}  # fmt: skip


def entry(decoder: str) -> tuple[str, ...]:
    """The interpreter's arguments for a decoder process with the decoder of this name."""
    program = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from tests.support import jailed; jailed.run({decoder!r})"
    return "-P", "-c", program


def run(decoder: str) -> None:
    from tussis.worker.audio.jail import process

    if decoder == "unlocked":
        vars(process)["lock_down"] = lambda keep, memory: []
        decoder = "escape"
    process.main(globals()[decoder])


# --- attempts to escape ------------------------------------------------------------------------------------------


def escape(data: bytes, limits: Any, open_stream: Any) -> Any:
    """Try what the bytes name. The refusal of the "recording" says what came of it."""
    name, _, argument = data.decode().partition(" ")
    try:
        result = ATTEMPTS[name](argument) if name in ATTEMPTS else _raw(name)
    except OSError as error:
        raise NotAudio(f"errno {error.errno}") from None
    raise NotAudio(f"done: {result}")


def _raw(name: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if (result := libc.syscall(_RAW[name], 0, 0, 0, 0, 0)) < 0:
        raise OSError(ctypes.get_errno(), name)
    return int(result)


def _fork(_: str) -> str:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    return "forked"


def _connect(port: str) -> str:
    with socket.create_connection(("127.0.0.1", int(port))):
        return "connected"


def _executable(_: str) -> str:
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
        return "executable"


def _make_executable(_: str) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, 4096) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        if libc.mprotect(ctypes.c_void_p(address), 4096, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            number = ctypes.get_errno()
            raise OSError(number, "mprotect")
        os._exit(0)  # the buffer cannot be released


ATTEMPTS: Final[dict[str, Callable[[str], object]]] = {
    "open": lambda path: Path(path).read_text(),
    "create": lambda path: Path(path).write_text("mine"),
    "list": lambda path: os.listdir(path),
    "stat": lambda path: os.stat(path),
    "unlink": lambda path: os.unlink(path),
    "connect": _connect,
    "socket": lambda _: socket.socket().fileno(),
    "socketpair": lambda _: socket.socketpair()[0].fileno(),
    "execve": lambda path: os.execv(path, [path]),
    "fork": _fork,
    "signal": lambda pid: os.kill(int(pid), signal.SIGCONT),
    "print": lambda _: os.write(2, b"mine"),
    "executable": _executable,
    "make-executable": _make_executable,
    "limits": lambda _: resource.setrlimit(resource.RLIMIT_CPU, resource.getrlimit(resource.RLIMIT_CPU)),
    "environment": lambda _: sorted(os.environ),
    "descriptors": lambda _: [number for number in range(3, 64) if _is_open(number)],
    "thread": lambda _: __import__("threading").Thread(target=print).start(),
}


def _is_open(number: int) -> bool:
    try:
        os.pread(number, 1, 0)
    except OSError as error:
        return error.errno != 9  # EBADF
    return True


# --- forged replies ----------------------------------------------------------------------------------------------


def forge(data: bytes, limits: Any, open_stream: Any) -> Any:
    """Send the datagrams that the bytes hold, each with its length before it. ``@@@@@@@@`` stands for the id."""
    talk = open_stream.__self__
    at = 0
    talk._memory[:] = 0.5
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "little")
        datagram = data[at + 2 : at + 2 + size]
        talk.send(datagram.replace(b"@@@@@@@@", talk.id.to_bytes(8, sys.byteorder)))
        at += 2 + size
    time.sleep(60)


def forged(*datagrams: bytes) -> bytes:
    """The "recording" that lets :func:`forge` send these."""
    return b"".join(len(datagram).to_bytes(2, "little") + datagram for datagram in datagrams)


def flood(data: bytes, limits: Any, open_stream: Any) -> Any:
    """Fill the place again and again, and never read an answer."""
    from tussis.worker.audio.jail import protocol
    from tussis.worker.audio.samples import Source

    talk = open_stream.__self__
    talk.send(protocol.stream(talk.id, 0, 16_000, 1, Source("wav", "pcm_s16", "soundfile")))
    while True:
        talk.send(protocol.block(talk.id, 0, 0, 1, False))


def late(data: bytes, limits: Any, open_stream: Any) -> Any:
    """Refuse this recording, and answer the next one as well."""
    from tussis.worker.audio.jail import protocol

    talk = open_stream.__self__
    talk.send(protocol.failed(talk.id, NotAudio("the first")))
    raise NotAudio("said too late")


# --- faults ------------------------------------------------------------------------------------------------------


def faulty(data: bytes, limits: Any, open_stream: Any) -> Any:
    """The product's decoder, with faults for bytes that begin with ``FAULT:jail-NAME:``."""
    from tussis.worker.audio.native import decode_native

    if data.startswith(MARKER):
        name, data = data.removeprefix(MARKER).split(b":", 1)
        match name:
            case b"segfault":
                ctypes.string_at(0)
            case b"hang":
                ctypes.PyDLL(None).sleep(3600)
            case b"spin":
                while True:
                    pass
            case b"exit":
                os._exit(7)
            case b"memory":
                bytearray(1 << 50)
            case b"half":
                from tussis.worker.audio.jail.protocol import SLOT_SAMPLES, SLOTS
                from tussis.worker.audio.samples import Source

                stream = open_stream(16_000, 1, Source("wav", "pcm_s16", "soundfile"))
                for _ in range(SLOTS):
                    stream.add(np.zeros((1, SLOT_SAMPLES), np.float32))
                raise NotAudio("damaged in the middle")
            case b"bug":
                raise RuntimeError("a fault of our own making")
    return decode_native(data, limits, open_stream)

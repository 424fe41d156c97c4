"""What the decoder process gives up before it gets the first recording. Nothing of it can be taken back."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import struct
from collections.abc import Iterable
from typing import Final

from tussis.worker.audio.jail.bpf import calls_here, install

#: linux/prctl.h
_PDEATHSIG, _SET_DUMPABLE, _NO_NEW_PRIVS = 1, 4, 38
#: The same numbers on all architectures.
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_VERSION: Final = 1
_PARENTS_OWN_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Missing(Exception):
    """A part of the jail is not available here. The message names it."""


_libc: Final = ctypes.CDLL(None, use_errno=True)


def end_with(parent: int) -> None:
    """Let this process be killed when the thread that started it ends. Exits if that has happened already."""
    # A terminal and some service managers send these to all processes. The worker ends this process itself.
    for number in _PARENTS_OWN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def lock_down(keep: Iterable[int], memory: int) -> list[str]:
    """Close the door. Returns the missing parts without which the process is still shut in: "Landlock (...)".

    Args:
        keep: the file descriptors that stay open, besides 0 to 2.
        memory: bytes of address space that the process may use in addition to what it uses now.

    Raises:
        Missing: without this part there is no jail.
    """
    calls = calls_here()
    if calls is None or not hasattr(_libc, "prctl"):
        raise Missing(f"no list of system calls for this platform ({' '.join(os.uname()[::4])})")
    gc.collect()
    gc.freeze()
    used = int(_statm().split()[0]) * resource.getpagesize()
    _close_others(set(keep) | {0, 1, 2})
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Missing(f"prctl ({os.strerror(ctypes.get_errno())})")
    missing = _landlock()
    for what, most in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    try:
        install(_libc, calls)
    except OSError as error:
        raise Missing(f"seccomp ({error.strerror})") from None
    return missing


def _statm() -> str:
    with open("/proc/self/statm") as file:
        return file.read()


def _close_others(keep: set[int]) -> None:
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in keep:
            try:
                os.close(number)
            except OSError:  # the descriptor of the folder itself
                continue


def _landlock() -> list[str]:
    """Forbid every access that this kernel's Landlock handles: no rule allows any."""
    version = _libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return [f"Landlock ({os.strerror(ctypes.get_errno())})"]
    # linux/landlock.h: file rights by version; from 4 on TCP bind and connect; from 6 on abstract sockets and signals.
    rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    attributes = struct.pack("=QQQ", (1 << rights) - 1, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _libc.syscall(_LANDLOCK_CREATE, attributes, size, 0)
    if ruleset < 0:
        return [f"Landlock ({os.strerror(ctypes.get_errno())})"]
    try:
        if _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) != 0:
            return [f"Landlock ({os.strerror(ctypes.get_errno())})"]
    finally:
        os.close(ruleset)
    return []

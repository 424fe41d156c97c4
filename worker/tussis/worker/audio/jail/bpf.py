"""The allow-list of system calls of the decoder process, as a seccomp filter (classic BPF).

Every other system call fails with EPERM. The calls on the list take no file, no address and no process. They concern
memory, threads, clocks, and the file descriptors that the process already has.

The table of arm64 was compared with the kernel's header. It has not run on such a machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import Final

#: linux/bpf_common.h, linux/filter.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
#: linux/seccomp.h
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
#: struct seccomp_data: the number, the architecture, and the low words of the arguments (little-endian machines).
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32: Final = 0x40000000
"""System calls of x86-64's other ABI have this bit. It would reach the same calls by other numbers."""
_PROT_EXEC: Final = 4
#: The flags with which C libraries start a thread: everything shared, same process. musl adds CLONE_DETACHED.
_THREAD: Final = (0x003D0F00, 0x007D0F00)


@dataclass(frozen=True)
class Calls:
    """The numbers of the system calls of one architecture."""

    architecture: int
    """AUDIT_ARCH of linux/audit.h."""
    seccomp: int
    clone: int
    mmap: int
    mprotect: int
    allowed: tuple[int, ...]
    """In the order of :data:`ALLOWED`."""


#: clone3 takes its flags in memory, where a filter cannot read them. The C library falls back to clone.
CLONE3: Final = 435

ALLOWED: Final = (
    "futex", "mremap", "munmap", "madvise", "brk", "recvfrom", "sendto", "pread64", "clock_gettime", "gettimeofday",
    "clock_nanosleep", "sched_yield", "sched_getaffinity", "getcpu", "getpid", "gettid", "getrandom", "rt_sigprocmask",
    "rt_sigreturn", "sigaltstack", "restart_syscall", "set_robust_list", "rseq", "membarrier", "exit", "exit_group",
)  # fmt: skip
"""The system calls without conditions, by their names."""

CALLS: Final = {
    "x86_64": Calls(
        architecture=0xC000003E,
        seccomp=317,
        clone=56,
        mmap=9,
        mprotect=10,
        allowed=(202, 25, 11, 28, 12, 45, 44, 17, 228, 96, 230, 24, 204, 309, 39, 186, 318, 14, 15, 131, 219, 273, 334,
                 324, 60, 231),
    ),
    "aarch64": Calls(
        architecture=0xC00000B7,
        seccomp=277,
        clone=220,
        mmap=222,
        mprotect=226,
        allowed=(98, 216, 215, 233, 214, 207, 206, 67, 113, 169, 115, 124, 123, 168, 172, 178, 278, 135, 139, 132, 128,
                 99, 293, 283, 93, 94),
    ),
}  # fmt: skip


def program(calls: Calls) -> bytes:
    """The filter, as an array of ``struct sock_filter``."""
    load_number, allow, refuse = (_LOAD, 0, 0, _NUMBER), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    kill = (_RETURN, 0, 0, _KILL_PROCESS)
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, calls.architecture), kill, load_number]
    lines += [(_AT_LEAST, 0, 1, _X32), kill]
    for number in (calls.mmap, calls.mprotect):  # never executable: the third argument
        lines += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENTS + 16), (_ANY_BIT, 0, 1, _PROT_EXEC), refuse, allow]
    lines += [(_EQUAL, 0, 5, calls.clone), (_LOAD, 0, 0, _ARGUMENTS)]
    lines += [(_EQUAL, 1, 0, _THREAD[0]), (_EQUAL, 0, 1, _THREAD[1]), allow, refuse]
    lines += [(_EQUAL, 0, 1, CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for number in calls.allowed:
        lines += [(_EQUAL, 0, 1, number), allow]
    lines.append(refuse)
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def calls_here() -> Calls | None:
    """The table of this machine; None if there is none."""
    return CALLS.get(platform.machine())


def install(libc: ctypes.CDLL, calls: Calls) -> None:
    """Put all threads of this process under the filter, for ever. Needs no_new_privs. Raises :class:`OSError`."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_char_p))

    lines = program(calls)
    filled = Program(len(lines) // 8, lines)
    if libc.syscall(calls.seccomp, _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.byref(filled)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

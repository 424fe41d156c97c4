"""One decoder process, seen from the child: its start, its limits, its end."""

from __future__ import annotations

import fcntl
import json
import math
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tussis.shared.errors import AudioError, ObjectTooLarge
from tussis.worker.audio.jail import protocol
from tussis.worker.audio.jail.process import Arguments
from tussis.worker.audio.jail.protocol import (
    DECODE,
    K_DECODE,
    K_READY,
    MAX_DATAGRAM,
    SLOT_BYTES,
    SLOTS,
    Failed,
    Violation,
)
from tussis.worker.audio.jail.receiving import Open, Receiver
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio

ENTRY: Final = ("-P", "-m", "tussis.worker.audio.jail.process")
"""The interpreter's arguments for a decoder process."""
START_S: Final = 60.0
"""Seconds in which a process has to be ready. A quiet machine needs half a second."""
_DEATH_S: Final = 5.0
_CPU_SLACK_S: Final = 5.0
#: Freed memory of a recording is kept for the next one: giving it back and faulting it in again takes longer than the
#: decoding of a short recording. One thread of BLAS: nothing here multiplies matrices.
_ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_PASSED_ON: Final = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""Where Python finds its modules and libraries. The rest of the child's environment has secrets, and is not passed."""


class Unavailable(Exception):
    """A decoder process cannot shut itself in on this machine. The message says why."""


class Lost(Exception):
    """The decoder process crashed, hung or broke the protocol. The message says which."""


class Killed(Lost):
    """Something else killed the process: usually the kernel, for lack of memory."""


class DecoderProcess:
    """A process from its start to :meth:`kill`. It decodes one recording at a time."""

    def __init__(self, limits: Limits, entry: tuple[str, ...] | None = None) -> None:
        """Start the process and do not wait for it. Raises :class:`OSError` when it cannot be started."""
        if not hasattr(os, "memfd_create"):
            raise Unavailable(f"{sys.platform} has no shared memory of the needed kind")
        self.decoded = 0
        """The number of recordings."""
        self.idle = True
        """Whether the process can decode another recording: none is in work, and none had a fault."""
        self._missing: list[str] | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        self._objects = os.memfd_create("tussis-object", os.MFD_CLOEXEC)
        self._samples = os.memfd_create("tussis-samples", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._samples, SLOTS * SLOT_BYTES)
        fcntl.fcntl(self._samples, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        objects = os.open(f"/proc/self/fd/{self._objects}", os.O_RDONLY | os.O_CLOEXEC)
        arguments = Arguments(theirs.fileno(), objects, self._samples, os.getpid(), limits)
        try:
            self._process = subprocess.Popen(
                [sys.executable, *(entry or ENTRY), arguments.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), objects, self._samples),
                env=_ENVIRONMENT | {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                cwd="/",
            )
        except OSError:
            self._close()
            raise
        finally:
            theirs.close()
            os.close(objects)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def missing(self) -> list[str]:
        """Wait until the process is ready. Returns the parts of the jail that this machine does not have.

        Raises :class:`Unavailable`, and :class:`Lost` when the process ends before.
        """
        if self._missing is None:
            self._channel.settimeout(START_S)
            report = self._receive(lambda: f"it was not ready within {START_S:g} s")
            if report[:1] != bytes([K_READY]):
                raise Lost("it did not report its start")
            told = json.loads(report[1:])
            if "refused" in told:
                raise Unavailable(told["refused"])
            self._missing = list(told["missing"])
        return self._missing

    def decode(self, data: bytes, open_stream: Open, timeout: Timeout) -> Audio:
        """Decode a recording. If the process is not :attr:`idle` afterwards, it must be killed.

        Raises:
            AudioError, ObjectTooLarge, DecoderOutOfMemory, InternalFault: the recording is refused.
            Lost: the process crashed, hung or broke the protocol.
        """
        self.missing()
        self.decoded += 1
        self.idle = False
        id_ = secrets.randbits(64)
        receiver = Receiver(id_, self._samples, open_stream)
        timeout.bind(self.pid)
        try:
            self._give(data)
            self._send(DECODE.pack(K_DECODE, id_, len(data)))
            while True:
                if (left_s := timeout.left_s) <= 0:  # also for a process that never stops sending
                    raise Lost(timeout.over())
                self._channel.settimeout(left_s)
                datagram = self._receive(timeout.over)
                reply = protocol.unpack(datagram, id_)
                if isinstance(reply, Failed):
                    self.idle = isinstance(reply.error, AudioError | ObjectTooLarge)
                answer = receiver.take(reply)
                if isinstance(answer, Audio):
                    self.idle = True
                    return answer
                if answer:
                    self._send(answer)
        except Violation as violation:
            raise Lost(f"it broke the protocol: {violation}") from None
        finally:
            os.ftruncate(self._objects, 0)

    def kill(self) -> None:
        """End the process and free what belongs to it."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEATH_S)
        self._close()

    def _give(self, data: bytes) -> None:
        view = memoryview(data)
        at = 0
        while at < len(data):
            at += os.pwrite(self._objects, view[at:], at)

    def _send(self, datagram: bytes) -> None:
        try:
            self._channel.send(datagram)
        except TimeoutError:
            raise Lost("it does not read the answers") from None
        except OSError:
            raise self._ended() from None

    def _receive(self, late: Callable[[], str]) -> bytes:
        try:
            datagram = self._channel.recv(MAX_DATAGRAM)
        except TimeoutError:
            raise Lost(late()) from None
        except OSError:
            datagram = b""
        if not datagram:
            raise self._ended()
        return datagram

    def _ended(self) -> Lost:
        try:
            status = self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:
            return Lost("it closed its end and goes on")
        if status == -signal.SIGKILL:
            return Killed("it was killed, probably for lack of memory")
        if status == -signal.SIGXCPU:
            return Lost("it used more time of the CPU than its limit")
        if status < 0:
            return Lost(f"it crashed ({signal.Signals(-status).name})")
        return Lost(f"it ended with exit status {status}")

    def _close(self) -> None:
        self._channel.close()
        os.close(self._objects)
        os.close(self._samples)


class Timeout:
    """The deadline of a recording: wall time and time of the CPU. It starts again with every minute of audio."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._pid: int | None = None
        self._ends = math.inf

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self._ends - time.monotonic()

    def over(self) -> str:
        """What is said when the deadline is over."""
        return f"it did not answer within {self.seconds:g} s"

    def bind(self, pid: int) -> None:
        """Start for this process."""
        self._pid = pid
        self.again()

    def again(self) -> None:
        """Start again."""
        self._ends = time.monotonic() + self.seconds
        assert self._pid is not None
        with suppress(OSError):  # the process has ended: the next reply says so
            used = time.clock_gettime(~self._pid << 3 | 2)  # clock_getcpuclockid(3)
            _, hard = resource.prlimit(self._pid, resource.RLIMIT_CPU)
            soft = math.ceil(used + self.seconds + _CPU_SLACK_S)
            if hard == resource.RLIM_INFINITY or soft < hard:
                resource.prlimit(self._pid, resource.RLIMIT_CPU, (soft, hard))

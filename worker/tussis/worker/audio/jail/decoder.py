"""Decoding in the jail, as the pipeline calls it. The process is replaced regularly and after every fault."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Final

from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import (
    DecoderCrashed,
    DecoderLost,
    DecoderOutOfMemory,
    InternalFault,
    JailMissing,
    ProfileNotJailed,
)
from tussis.worker import logs
from tussis.worker.audio.decode import decode
from tussis.worker.audio.gathered import Gathered
from tussis.worker.audio.jail.host import DecoderProcess, Killed, Lost, Timeout, Unavailable
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio, Tick

_log = logs.get("decoder")

RECORDINGS: Final = 500
"""Recordings after which a process is replaced. A process that an attacker has taken over sees at most that many."""
_AHEAD: Final = 20
"""The next process starts this many recordings earlier, so that none waits for it. It loads for half a second."""


class Mode(StrEnum):
    """``TUSSIS_DECODER_JAIL``."""

    AUTO = "auto"
    """In the jail, with the parts that the machine has. Without a jail where there is none."""
    REQUIRE = "require"
    """In the whole jail, or not at all."""
    OFF = "off"
    """In the worker's own process."""


class JailedDecoder:
    """Decodes recordings in a decoder process. Not for several threads."""

    def __init__(
        self,
        limits: Limits,
        *,
        timeout_s: float = 120.0,
        tries: int = 3,
        recordings: int = RECORDINGS,
        entry: tuple[str, ...] | None = None,
        whole: bool = False,
    ) -> None:
        """Start the process.

        Args:
            limits: the limits for a recording.
            timeout_s: seconds for each minute of audio.
            tries: processes that may crash on one recording until it fails.
            recordings: recordings after which the process is replaced.
            entry: the interpreter's arguments. Tests run other decoders.
            whole: refuse a recording that must be decoded outside, instead of decoding it outside.

        Raises:
            Unavailable: there is no jail on this machine.
            DecoderLost: the process did not start, which may pass.
        """
        self._limits = limits
        self._timeout_s = timeout_s
        self._tries = tries
        self._recordings = recordings
        self._entry = entry
        self._whole = whole
        self._process: DecoderProcess | None = None
        self._next: DecoderProcess | None = None
        self.missing = self._ready().missing()
        """The parts of the jail that this machine does not have."""

    @property
    def pid(self) -> int | None:
        """The process id, for tests. None between two processes."""
        return None if self._process is None else self._process.pid

    def decode(self, data: bytes, decoder: Decoder = Decoder.NATIVE, tick: Tick = lambda: None) -> Audio:
        """As :func:`tussis.worker.audio.decode.decode`, with the same result to the last bit.

        Raises also:
            DecoderCrashed: every process that tried this recording crashed, hung or broke the protocol.
            DecoderLost: no process could be started.
            DecoderOutOfMemory: a process needed more memory than its limit, or was killed.
            ProfileNotJailed: the recording must be decoded outside the jail, and ``whole`` forbids it.
        """
        if decoder is Decoder.PYDUB:
            if self._whole:
                raise ProfileNotJailed
            return decode(data, self._limits, decoder, tick)
        self._limits.check_size(len(data))
        reason = ""
        for number in range(1, self._tries + 1):
            try:
                return self._decode_once(data, tick)
            except Killed as lost:
                _log.warning("decoder_lost", reason=str(lost), number=number)
                raise DecoderOutOfMemory(f"the decoder process was lost on this recording: {lost}") from None
            except Lost as lost:
                reason = str(lost)
                _log.warning("decoder_lost", reason=reason, number=number)
                tick()  # the deadline of the stage starts again, and a stopping worker ends here
        raise DecoderCrashed(f"{self._tries} decoder processes were lost on this recording; the last one: {reason}")

    def close(self) -> None:
        """End the process, and the next one."""
        for process in (self._process, self._next):
            if process is not None:
                process.kill()
        self._process = self._next = None

    def _decode_once(self, data: bytes, tick: Tick) -> Audio:
        try:
            process = self._ready()
        except Unavailable as error:
            raise DecoderLost(f"no decoder process could be started: {error}") from None
        timeout = Timeout(self._timeout_s)

        def goes_on() -> None:
            tick()
            timeout.again()

        try:
            return process.decode(data, partial(Gathered, self._limits, tick=goes_on), timeout)
        except InternalFault as error:
            _log.error("decoder_fault", reason=str(error))
            raise
        finally:
            if not process.idle or process.decoded >= self._recordings:
                self._replace()
            elif self._next is None and process.decoded >= self._recordings - _AHEAD:
                self._next = self._started()

    def _ready(self) -> DecoderProcess:
        """A process that is ready. Raises :class:`Unavailable` and :class:`DecoderLost`."""
        if self._process is not None and self._process.ended:
            _log.warning("decoder_lost", reason="it ended between two recordings", number=0)
            self._replace()
        try:
            if self._process is None:
                self._process = DecoderProcess(self._limits, self._entry)
            self._process.missing()
        except (OSError, Lost) as error:
            self.close()
            raise DecoderLost(f"no decoder process could be started: {error}") from error
        except Unavailable:
            self.close()
            raise
        return self._process

    def _replace(self) -> None:
        """End the process. The next one has started before, or loads while the child scores."""
        following, self._next = self._next, None
        self.close()
        self._process = following or self._started()

    def _started(self) -> DecoderProcess | None:
        """A process that loads. None if it cannot be started: the next recording tries again, and reports it."""
        try:
            return DecoderProcess(self._limits, self._entry)
        except OSError:
            return None


def open_jail(
    mode: Mode, limits: Limits, *, timeout_s: float, tries: int, outside: bool
) -> tuple[JailedDecoder | None, str]:
    """The decoder of a child, and what is missing, as one line; empty if nothing is.

    ``outside``: the profile of the model is decoded outside the jail.

    Raises:
        JailMissing: ``require``, and anything is missing.
        DecoderLost: the process did not start, which may pass.
    """
    if mode is Mode.OFF:
        return None, "off (TUSSIS_DECODER_JAIL)"
    if outside and mode is Mode.REQUIRE:
        raise JailMissing("the profile of the model, legacy, is decoded by ffmpeg outside the jail")
    whole = mode is Mode.REQUIRE
    try:
        jail = JailedDecoder(limits, timeout_s=timeout_s, tries=tries, whole=whole)
    except Unavailable as error:
        if whole:
            raise JailMissing(f"recordings cannot be decoded in a jail on this machine: {error}") from None
        return None, f"none on this machine: {error}"
    if whole and jail.missing:
        jail.close()
        raise JailMissing(f"the jail lacks {', '.join(jail.missing)}")
    lacks = [f"without {part}" for part in jail.missing]
    lacks += ["not for the model's profile legacy, which runs ffmpeg"] if outside else []
    return jail, ", ".join(lacks)

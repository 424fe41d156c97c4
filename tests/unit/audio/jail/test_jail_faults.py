"""A decoder process that crashes, hangs or lies costs its recording, and nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from tests.support.jailed import MARKER, forged
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tests.unit.audio.jail.conftest import Make
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import (
    DecoderCrashed,
    DecoderOutOfMemory,
    InternalFault,
    JailMissing,
    NonFiniteSamples,
    NotAudio,
    ProfileNotJailed,
    TooLong,
    TussisError,
)
from tussis.worker.audio.decode import decode
from tussis.worker.audio.gathered import Gathered
from tussis.worker.audio.jail import decoder as module
from tussis.worker.audio.jail import protocol
from tussis.worker.audio.jail.decoder import JailedDecoder, Mode, open_jail
from tussis.worker.audio.jail.host import DecoderProcess, Unavailable
from tussis.worker.audio.jail.receiving import Receiver
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Source
from tussis.worker.outcome import Stopping

GOOD = wav(1.0)
ID = int.from_bytes(b"@@@@@@@@", "little")
WAV = Source("wav", "pcm_s16", "soundfile")
STREAM = protocol.stream(ID, 0, 16_000, 1, WAV)
BLOCK = protocol.block(ID, 0, 0, 1_000, False)
END, DONE = protocol.end(ID, 0, False), protocol.done(ID, 0, False)


def with_fault(name: str) -> bytes:
    return MARKER + name.encode() + b":" + GOOD


def assert_decodes(jail: JailedDecoder) -> None:
    assert np.array_equal(jail.decode(GOOD).samples, decode(GOOD, Limits()).samples)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("segfault", "crashed .SIGSEGV"),
        ("exit", "exit status 7"),
        ("hang", "did not answer within 2 s"),
        ("spin", "did not answer within 2 s"),
    ],
)
def test_a_lost_process_is_replaced_and_the_recording_fails(jail: Make, fault: str, words: str) -> None:
    one = jail("faulty", timeout_s=2.0)
    before = one.pid
    with pytest.raises(DecoderCrashed, match=words):
        one.decode(with_fault(fault))
    assert one.pid != before
    one._timeout_s = 60.0
    assert_decodes(one)


def test_an_error_in_the_middle_of_a_recording_costs_no_process(jail: Make) -> None:
    """The child still takes the blocks before the error. What it says of them comes before the next recording."""
    one = jail("faulty", tries=1)
    before = one.pid
    for _ in range(3):
        with pytest.raises(NotAudio, match="damaged in the middle"):
            one.decode(with_fault("half"))
        assert_decodes(one)
    assert one.pid == before


def test_every_try_has_a_process_of_its_own(jail: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[DecoderProcess] = []

    class Counted(DecoderProcess):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            started.append(self)

    monkeypatch.setattr(module, "DecoderProcess", Counted)
    one = jail("faulty", tries=3)
    with pytest.raises(DecoderCrashed, match="3 decoder processes"):
        one.decode(with_fault("segfault"))
    assert len({process.pid for process in started}) == 4


@pytest.mark.parametrize(("fault", "error"), [("memory", DecoderOutOfMemory), ("bug", InternalFault)])
def test_other_faults_keep_their_class(jail: Make, fault: str, error: type[TussisError]) -> None:
    one = jail("faulty")
    before = one.pid
    with pytest.raises(error):
        one.decode(with_fault(fault))
    assert one.pid != before
    assert_decodes(one)


def test_a_process_that_the_kernel_kills_is_a_lack_of_memory(jail: Make) -> None:
    """The recording is tried again later: other processes may have needed the memory."""
    one = jail("faulty", timeout_s=60.0)

    def kill() -> None:
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)

    with pytest.raises(DecoderOutOfMemory, match="killed"):
        one.decode(wav(130.0), tick=kill)
    assert_decodes(one)


def test_a_process_that_ended_between_recordings_is_replaced(jail: Make) -> None:
    one = jail()
    assert_decodes(one)
    assert one._process is not None
    os.kill(one._process.pid, signal.SIGKILL)
    wait_until(lambda: one._process is not None and one._process.ended, 10, "its end")
    assert_decodes(one)


def test_a_process_is_replaced_after_its_number_of_recordings(jail: Make) -> None:
    one = jail(recordings=2)
    pids = []
    for _ in range(4):
        pids.append(one.pid)
        assert_decodes(one)
    assert pids[0] == pids[1]
    assert pids[1] != pids[2]
    assert pids[2] == pids[3]


def test_the_next_process_starts_before_it_is_needed(jail: Make) -> None:
    one = jail(recordings=module._AHEAD + 2)
    following = None
    for number in range(module._AHEAD + 2):
        assert (following is None) == (number < 2)
        assert_decodes(one)
        following = one._next
    assert following is None
    assert one._process is not None
    assert one._process.decoded == 0


def test_the_next_process_is_the_one_that_started_ahead(jail: Make) -> None:
    one = jail(recordings=2)
    assert_decodes(one)
    assert one._next is not None
    ahead = one._next.pid
    assert_decodes(one)
    assert one.pid == ahead


def test_closing_ends_both_processes(jail: Make) -> None:
    one = jail(recordings=2)
    assert_decodes(one)
    assert one._next is not None
    pids = [one.pid, one._next.pid]
    one.close()
    assert not any(psutil.pid_exists(pid) for pid in pids if pid is not None)
    assert one.pid is None


def test_a_refused_recording_does_not_cost_the_process(jail: Make) -> None:
    one = jail()
    before = one.pid
    with pytest.raises(NotAudio):
        one.decode(b"this is not audio" * 10)
    assert one.pid == before


def test_a_stop_in_the_middle_ends_the_process(jail: Make) -> None:
    one = jail()
    before = one.pid

    def stop() -> None:
        raise Stopping("the worker is stopping")

    with pytest.raises(Stopping):
        one.decode(wav(130.0), tick=stop)
    assert one.pid != before
    assert_decodes(one)


@pytest.mark.parametrize(
    "datagrams",
    [
        [b""],
        [b"\x00"],
        [b"\xff" * 40],
        [b"\x63@@@@@@@@"],
        [protocol.done(ID + 1, 0, False)],
        [DONE],
        [BLOCK],
        [END],
        [protocol.stream(ID, 1, 16_000, 1, WAV)],
        [protocol.stream(ID, 0, 16_000, 99, WAV)],
        [protocol.stream(ID, 0, 1, 1, WAV)],
        [protocol.stream(ID, 0, 16_000, 1, Source("wav", "h264", "soundfile"))],
        [protocol.stream(ID, 0, 16_000, 1, Source("wav", "pcm_s16", "\x1b[31m"))],
        [STREAM + b"\0more"],
        [STREAM, protocol.block(ID, 0, 2, 1, False)],
        [STREAM, protocol.block(ID, 0, 0, 2**18 + 1, False)],
        [STREAM, protocol.block(ID, 0, 0, 2**31, True)],
        [STREAM, protocol.block(ID, 0, 0, 0, False)],
        [STREAM, protocol.block(ID, 1, 0, 10, False)],
        [STREAM, BLOCK + b"\0"],
        [STREAM, BLOCK, END, END],
        [STREAM, BLOCK, END, protocol.done(ID, 1, False)],
        [STREAM, BLOCK, DONE],
        [protocol.failed(ID, NotAudio("x")).replace(b"not_audio", b"credentials")],
        [protocol.failed(ID, NotAudio("x")).replace(b"not_audio", b"not\xffaudio")],
        [protocol.failed(ID, NotAudio("x")).replace(b"\0x", b"")],
    ],
)
def test_a_reply_that_no_decoder_sends_is_refused(datagrams: list[bytes]) -> None:
    memory = os.memfd_create("samples")
    try:
        os.ftruncate(memory, protocol.SLOTS * protocol.SLOT_BYTES)
        receiver = Receiver(ID, memory, partial(Gathered, Limits()))
        for datagram in datagrams[:-1]:
            receiver.take(protocol.unpack(datagram, ID))
        with pytest.raises(protocol.Violation):
            receiver.take(protocol.unpack(datagrams[-1], ID))
    finally:
        os.close(memory)


@pytest.mark.parametrize("datagrams", [[STREAM, BLOCK, DONE], [DONE]])
def test_a_process_that_sends_it_is_lost(jail: Make, datagrams: list[bytes]) -> None:
    with pytest.raises(DecoderCrashed):
        jail("forge", timeout_s=10.0).decode(forged(*datagrams))


def test_a_flood_without_an_end_is_refused(jail: Make) -> None:
    with pytest.raises((DecoderCrashed, TooLong)):
        jail("flood", limits=Limits(max_duration_s=60.0), timeout_s=2.0).decode(b"flood")


def test_forged_samples_are_checked_like_decoded_ones(jail: Make) -> None:
    audio = jail("forge").decode(forged(STREAM, BLOCK, END, DONE))
    assert audio.samples.shape == (1, 1_000)
    assert audio.peak == 0.5


def test_a_message_is_short_and_printable(jail: Make) -> None:
    lie = protocol.failed(ID, NotAudio("\x1b[2J\r\n" + "x" * 5_000))
    with pytest.raises(NotAudio) as told:
        jail("forge").decode(forged(lie[:1_000]))
    assert str(told.value).isprintable()
    assert len(str(told.value)) <= protocol.MAX_MESSAGE


def test_a_late_reply_reaches_no_other_recording(jail: Make) -> None:
    one = jail("late")
    with pytest.raises(NotAudio, match="the first"):
        one.decode(b"first")
    with pytest.raises(DecoderCrashed, match="id of another recording"):
        one.decode(b"second")


def test_samples_are_copied_before_they_are_checked(jail: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process changed them after the check."""
    one = jail("forge")
    assert one._process is not None
    memory = one._process._samples
    add = Gathered.add

    def changing(self: Gathered, block: npt.NDArray[np.float32]) -> None:
        add(self, block)
        os.pwrite(memory, b"\xff" * 4_000, 0)

    monkeypatch.setattr(Gathered, "add", changing)
    audio = one.decode(forged(STREAM, BLOCK, END, DONE))
    assert np.array_equal(audio.samples, np.full((1, 1_000), 0.5, np.float32))


def test_nan_is_refused(jail: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = jail()
    floats = np.full(16_000, np.nan, "<f4").tobytes()
    from tests.support.encoding import wav as encoded

    with pytest.raises(NonFiniteSamples):
        one.decode(encoded(floats, channels=1, rate_hz=16_000, tag=3, bits=32))
    assert_decodes(one)


def test_the_profile_legacy_is_decoded_outside_or_refused(jail: Make) -> None:
    assert jail().decode(GOOD, Decoder.PYDUB).decoder == "pydub"
    with pytest.raises(ProfileNotJailed):
        jail(whole=True).decode(GOOD, Decoder.PYDUB)


def missing(raised: str | list[str]) -> Callable[[DecoderProcess], list[str]]:
    def told(self: DecoderProcess) -> list[str]:
        if isinstance(raised, str):
            raise Unavailable(raised)
        return raised

    return told


def test_where_there_is_no_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"timeout_s": 1.0, "tries": 1, "outside": False}
    monkeypatch.setattr(DecoderProcess, "missing", missing("seccomp (Invalid argument)"))
    assert open_jail(Mode.AUTO, Limits(), **options) == (None, "none on this machine: seccomp (Invalid argument)")  # type: ignore[arg-type]
    with pytest.raises(JailMissing, match="seccomp"):
        open_jail(Mode.REQUIRE, Limits(), **options)  # type: ignore[arg-type]


def test_where_a_part_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecoderProcess, "missing", missing(["Landlock (Function not implemented)"]))
    jail, lacks = open_jail(Mode.AUTO, Limits(), timeout_s=1.0, tries=1, outside=True)
    assert lacks == "without Landlock (Function not implemented), not for the model's profile legacy, which runs ffmpeg"
    assert jail is not None
    jail.close()
    with pytest.raises(JailMissing, match="Landlock"):
        open_jail(Mode.REQUIRE, Limits(), timeout_s=1.0, tries=1, outside=False)
    with pytest.raises(JailMissing, match="legacy"):
        open_jail(Mode.REQUIRE, Limits(), timeout_s=1.0, tries=1, outside=True)
    assert open_jail(Mode.OFF, Limits(), timeout_s=1.0, tries=1, outside=False) == (None, "off (TUSSIS_DECODER_JAIL)")

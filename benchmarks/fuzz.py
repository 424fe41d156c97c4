"""Mutated recordings through the jailed decoder, and mutated datagrams through the child's end of its protocol.

The same seed and the same folder give the same files. A finding is a decoder process that crashes, hangs or is killed,
or an error that is not one of Tussis' own. A file for which FFmpeg wants more memory than the process has is none: the
process refuses it and goes on.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tussis.shared.errors import (
    DecoderCrashed,
    DecoderLost,
    DecoderOutOfMemory,
    InternalFault,
    TussisError,
)
from tussis.worker.audio.gathered import Gathered
from tussis.worker.audio.jail import protocol
from tussis.worker.audio.jail.decoder import JailedDecoder
from tussis.worker.audio.jail.receiving import Receiver
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Source

LIMITS: Final = Limits(max_bytes=2**22, max_duration_s=60.0, whole_bytes=2**22)
_TIMEOUT_S: Final = 20.0
_LARGEST_SEED: Final = 40_000
_HEADER: Final = 512
#: Values with which parsers fail: zero, one, the ends of signed and unsigned ranges.
_ODD: Final = (
    b"\0\0\0\0",
    b"\1\0\0\0",
    b"\0\0\0\1",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
)
_FINDINGS: Final = (DecoderCrashed, DecoderLost, InternalFault)


@dataclass
class Fuzzed:
    """What came of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of files by error class, ``decoded`` for those without."""
    findings: list[tuple[str, bytes]] = field(default_factory=list)
    """The error and the file."""


def seeds(folder: Path) -> list[bytes]:
    """The small recordings in a folder, in the order of their names."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and 0 < file.stat().st_size <= _LARGEST_SEED)
    return [file.read_bytes() for file in files]


def mutated(seed: int, originals: list[bytes], number: int) -> Iterator[bytes]:
    """Files with changed bytes, odd numbers, missing, doubled or foreign parts. Most changes are in the header."""
    chance = random.Random(seed)
    for _ in range(number):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            _change(data, chance, originals)
        yield bytes(data[: LIMITS.max_bytes])


def _change(data: bytearray, chance: random.Random, originals: list[bytes]) -> None:
    if not data:
        data += chance.choice(originals)
    at = chance.randrange(min(len(data), _HEADER) if chance.random() < 0.7 else len(data))
    length = chance.choice((1, 2, 4, 8, 36, 256))
    match chance.randrange(7):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.randrange(256)
        case 2:
            data[at : at + 4] = chance.choice(_ODD)
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = bytes(length) if chance.random() < 0.5 else data[at : at + length]
        case 5:
            other = chance.choice(originals)
            start = chance.randrange(len(other))
            data[at:at] = other[start : start + length]
        case _:
            del data[at:]


def fuzz_files(folder: Path, number: int, seed: int) -> Fuzzed:
    """Decode ``number`` mutated files in the jail."""
    done = Fuzzed()
    jail = JailedDecoder(LIMITS, timeout_s=_TIMEOUT_S, tries=1, recordings=5_000)
    try:
        for data in mutated(seed, seeds(folder), number):
            try:
                jail.decode(data)
                done.outcomes["decoded"] += 1
            except TussisError as error:
                done.outcomes[error.error_class] += 1
                killed = isinstance(error, DecoderOutOfMemory) and "lost" in str(error)
                if killed or isinstance(error, _FINDINGS):
                    done.findings.append((f"{error.error_class}: {error}", data))
            except Exception as error:
                done.outcomes[type(error).__name__] += 1
                done.findings.append((repr(error), data))
    finally:
        jail.close()
    return done


def fuzz_protocol(number: int, seed: int) -> Counter[str]:
    """``number`` conversations with mutated datagrams. Raises any error that a child does not expect."""
    chance = random.Random(seed)
    memory = os.memfd_create("samples")
    outcomes: Counter[str] = Counter()
    try:
        os.ftruncate(memory, protocol.SLOTS * protocol.SLOT_BYTES)
        for _ in range(number):
            outcomes[_converse(chance, memory)] += 1
    finally:
        os.close(memory)
    return outcomes


def _converse(chance: random.Random, memory: int) -> str:
    source = Source("wav", "pcm_s16", "soundfile")
    channels = chance.choice((1, 1, 2, 8))
    talk = [
        protocol.stream(7, 0, 16_000, channels, source),
        protocol.block(7, 0, 0, 100, interleaved=False),
        protocol.block(7, 0, 1, 100, interleaved=True),
        protocol.end(7, 0, incomplete=False),
        protocol.done(7, 0, incomplete=False),
    ]
    if chance.random() < 0.3:
        chance.shuffle(talk)
    receiver = Receiver(7, memory, partial(Gathered, LIMITS))
    try:
        for datagram in talk:
            changed = bytearray(datagram)
            if chance.random() < 0.4:
                _change(changed, chance, talk)
                if chance.random() < 0.7:
                    changed[1:9] = (7).to_bytes(8, "little")
            receiver.take(protocol.unpack(bytes(changed[: protocol.MAX_DATAGRAM]), 7))
    except protocol.Violation:
        return "violation"
    except TussisError as error:
        return error.error_class
    return "taken"

"""Speech from synthesisers: espeak-ng with its many voices, and flite when it is there.

Both are programs of the operating system (Debian: ``espeak-ng``, ``flite``), wanted for training only.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from training.codecs import resample
from training.pack import Wave
from tussis.shared.dsp import SAMPLE_RATE

ESPEAK_LANGUAGES: Final = (
    "en", "en-us", "en-gb-scotland", "en-gb-x-rp", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "tr", "sv", "fi",
    "cs", "hu", "el", "ro", "id", "vi", "hi", "sw", "da", "nb",
)  # fmt: skip
ESPEAK_VARIANTS: Final = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "croak", "whisper", "whisperf",
    "klatt", "klatt2", "klatt3", "klatt4", "Alex", "Annie", "Michael", "Linda", "Steph", "sandro", "victor",
    "grandma", "grandpa", "iven", "travis", "anikaRobot",
)  # fmt: skip
FLITE_VOICES: Final = ("kal16", "awb", "rms", "slt")
#: Words to make sentences of, one behind the other.
WORDS: Final = (
    "zero one two three four five six seven eight nine ten twenty hundred monday morning water table "
    "house window paper doctor telephone please record after the tone yes no maybe thanks hello okay "
    "alright what where when why tomorrow yesterday kitchen coffee bread apple orange green blue little "
    "big quickly slowly people children money work school street train station hospital breathe cold "
    "fever throat chest today better worse usually sometimes picture question answer history perhaps "
    "because although between through without against chicken cake pocket take keep kick cough drops hot "
    "ha hat heart house who how home half help happy hope "
)
#: Laughter, hesitation, breath and interjections, as far as a synthesiser can say them.
INTERJECTIONS: Final = (
    "ha ha ha ha", "he he he", "ho ho ho", "ah ha", "uh huh", "hmm", "huh", "ah", "oh", "eh", "ugh", "psst", "shh",
    "tsk tsk", "hey", "wow", "aaah", "ooh", "mmm", "hah", "ha", "hehehe", "achoo", "pfff", "brrr", "hi", "k k k",
    "t t t", "p p p",
)  # fmt: skip


def missing() -> str | None:
    """What to install before training, or None."""
    if shutil.which("espeak-ng") is None:
        return "espeak-ng is not installed: apt-get install espeak-ng (and flite, for more voices)"
    return None


def utterance(rng: np.random.Generator) -> Wave:
    """One utterance of a random voice, rate and pitch: float32 (n,) at 16 kHz, peak 1."""
    if rng.random() < 0.25:
        text = " ".join(rng.choice(INTERJECTIONS, size=int(rng.integers(1, 4))))
    else:
        text = " ".join(rng.choice(WORDS.split(), size=int(rng.integers(1, 16))))
        if rng.random() < 0.3:
            text = text.replace(" ", ", ", 1 + int(rng.integers(3)))
    said = _flite if shutil.which("flite") is not None and rng.random() < 0.4 else _espeak
    wave = said(rng, text)
    # Another length of the vocal tract: a synthesiser's few voices would be learnt by heart.
    wave = resample(wave, SAMPLE_RATE, int(SAMPLE_RATE * np.exp(rng.uniform(-0.22, 0.22)) // 100 * 100))
    peak = float(np.abs(wave).max(initial=0))
    return wave / peak if peak > 0 else wave


def _espeak(rng: np.random.Generator, text: str) -> Wave:
    voice = f"{rng.choice(ESPEAK_LANGUAGES)}+{rng.choice(ESPEAK_VARIANTS)}"
    command = ["espeak-ng", "-v", voice, "-s", str(rng.integers(90, 300)), "-p", str(rng.integers(5, 95)), "--stdout"]
    done = subprocess.run([*command, text], capture_output=True, check=True, timeout=60)
    # Piped, the header's lengths are placeholders: the samples follow its 44 bytes.
    samples = np.frombuffer(done.stdout[44 : len(done.stdout) // 2 * 2], "<i2").astype(np.float32) / np.float32(32_768)
    return resample(samples, 22_050, SAMPLE_RATE)


def _flite(rng: np.random.Generator, text: str) -> Wave:
    stretch = f"duration_stretch={rng.uniform(0.65, 1.5):.2f}"
    pitch = f"int_f0_target_mean={rng.uniform(75, 260):.0f}"
    command = ["flite", "-voice", str(rng.choice(FLITE_VOICES)), "--setf", stretch, "--setf", pitch, "-t", text]
    done = subprocess.run([*command, "-o", "/dev/stdout"], capture_output=True, check=True, timeout=60)
    samples, rate_hz = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    return resample(samples, rate_hz, SAMPLE_RATE)


def library(seed: int, count: int, folder: Path) -> list[Wave]:
    """``count`` utterances, made once and kept in ``folder``."""
    file = folder / f"speech-{seed}-{count}.npz"
    if not file.exists():
        rng = np.random.default_rng([seed, 77])
        waves = [utterance(rng) for _ in range(count)]
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, flat=np.concatenate(waves), lengths=np.array([wave.shape[0] for wave in waves]))
        partial.replace(file)
    with np.load(file) as kept:
        return [wave for wave in np.split(kept["flat"], np.cumsum(kept["lengths"])[:-1]) if wave.shape[0] > 1_600]

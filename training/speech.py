"""Speech from synthesisers: espeak-ng with its many voices, and flite and festival if they are installed.

They are packages of the operating system (Debian: ``espeak-ng``, ``flite``, ``festival`` and the ``festvox-`` packages
of :data:`FESTIVAL_VOICES`) and are needed for training only. espeak-ng generates speech from formulas. The voices of
the other two were made from recordings of people. ``val`` and ``train`` have different voices.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from training.codecs import resample
from training.pack import Wave
from training.processes import pool
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
FLITE_VOICES: Final = ("kal16", "awb", "slt", "rms")
#: Names in festival, without ``voice_``: three American, two Finnish, one Catalan and one Russian voice. The Italian
#: and Czech voices are left out: they are under the GPL, their output is made of their recordings, and the weights are
#: Apache-2.0.
FESTIVAL_VOICES: Final = (
    "kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts", "suo_fi_lj_diphone", "hy_fi_mv_diphone",
    "upc_ca_ona_hts", "msu_ru_nsh_clunits",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Voices:
    """The voices of a split."""

    languages: tuple[str, ...]
    variants: tuple[str, ...]
    """Variants of espeak-ng. Every variant can speak every language."""
    flite: tuple[str, ...]
    festival: tuple[str, ...]


#: ``val`` has the last voices of each list, ``train`` has the others.
TRAIN_VOICES: Final = Voices(ESPEAK_LANGUAGES[:-3], ESPEAK_VARIANTS[:-6], FLITE_VOICES[:-1], FESTIVAL_VOICES[:-2])
VAL_VOICES: Final = Voices(ESPEAK_LANGUAGES[-3:], ESPEAK_VARIANTS[-6:], FLITE_VOICES[-1:], FESTIVAL_VOICES[-2:])
#: The words of the sentences.
WORDS: Final = (
    "zero one two three four five six seven eight nine ten twenty hundred monday morning water table "
    "house window paper doctor telephone please record after the tone yes no maybe thanks hello okay "
    "alright what where when why tomorrow yesterday kitchen coffee bread apple orange green blue little "
    "big quickly slowly people children money work school street train station hospital breathe cold "
    "fever throat chest today better worse usually sometimes picture question answer history perhaps "
    "because although between through without against chicken cake pocket take keep kick cough drops hot "
    "ha hat heart house who how home half help happy hope "
)
#: Laughter, hesitation, breath and interjections that a synthesiser can pronounce.
INTERJECTIONS: Final = (
    "ha ha ha ha", "he he he", "ho ho ho", "ah ha", "uh huh", "hmm", "huh", "ah", "oh", "eh", "ugh", "psst", "shh",
    "tsk tsk", "hey", "wow", "aaah", "ooh", "mmm", "hah", "ha", "hehehe", "achoo", "pfff", "brrr", "hi", "k k k",
    "t t t", "p p p",
)  # fmt: skip


def missing() -> str | None:
    """A message about a missing program that the training needs, or None."""
    if shutil.which("espeak-ng") is None:
        return "espeak-ng is not installed: apt-get install espeak-ng (flite and festival add voices)"
    return None


def utterance(rng: np.random.Generator, voices: Voices) -> Wave:
    """One utterance with random voice, rate and pitch: float32 (n,) at 16 kHz, peak 1."""
    kind = rng.random()
    if kind < 0.2:
        text = " ".join(rng.choice(INTERJECTIONS, size=int(rng.integers(1, 4))))
    elif kind < 0.5:  # one or two words alone are most often mistaken for a cough
        text = " ".join(rng.choice(WORDS.split(), size=int(rng.integers(1, 3))))
    else:
        text = " ".join(rng.choice(WORDS.split(), size=int(rng.integers(3, 14))))
        if rng.random() < 0.3:
            text = text.replace(" ", ", ", 1 + int(rng.integers(3)))
    wave = _said(rng, text, voices)
    # Vary the length of the vocal tract. Otherwise the network would memorise the few voices.
    wave = resample(wave, SAMPLE_RATE, int(SAMPLE_RATE * np.exp(rng.uniform(-0.22, 0.22)) // 100 * 100))
    peak = float(np.abs(wave).max(initial=0))
    return wave / peak if peak > 0 else wave


def _said(rng: np.random.Generator, text: str, voices: Voices) -> Wave:
    kind = rng.random()
    installed = [voice for voice in voices.festival if voice in _installed_in_festival()]
    if installed and kind < 0.5:
        wave = _festival(rng, text, str(rng.choice(installed)))
        if wave is not None:
            return wave
    if shutil.which("flite") is not None and kind < 0.65:
        return _flite(rng, text, voices)
    return _espeak(rng, text, voices)


def _espeak(rng: np.random.Generator, text: str, voices: Voices) -> Wave:
    voice = f"{rng.choice(voices.languages)}+{rng.choice(voices.variants)}"
    command = ["espeak-ng", "-v", voice, "-s", str(rng.integers(90, 300)), "-p", str(rng.integers(5, 95)), "--stdout"]
    done = subprocess.run([*command, text], capture_output=True, check=True, timeout=60)
    # In a pipe, the lengths in the WAV header are placeholders. The samples start after its 44 bytes.
    samples = np.frombuffer(done.stdout[44 : len(done.stdout) // 2 * 2], "<i2").astype(np.float32) / np.float32(32_768)
    return resample(samples, 22_050, SAMPLE_RATE)


def _flite(rng: np.random.Generator, text: str, voices: Voices) -> Wave:
    stretch = f"duration_stretch={rng.uniform(0.65, 1.5):.2f}"
    pitch = f"int_f0_target_mean={rng.uniform(75, 260):.0f}"
    command = ["flite", "-voice", str(rng.choice(voices.flite)), "--setf", stretch, "--setf", pitch, "-t", text]
    done = subprocess.run([*command, "-o", "/dev/stdout"], capture_output=True, check=True, timeout=60)
    samples, rate_hz = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    return resample(samples, rate_hz, SAMPLE_RATE)


def _festival(rng: np.random.Generator, text: str, voice: str) -> Wave | None:
    """None if the voice cannot pronounce the text: each voice was made for one language, and the text is English."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        steps = (
            f"(voice_{voice})",
            f"(Parameter.set 'Duration_Stretch {rng.uniform(0.65, 1.4):.2f})",
            f'(utt.save.wave (SynthText "{text}") "{file}" \'riff)',
        )
        subprocess.run(["festival", "-b", *steps], capture_output=True, check=False, timeout=60)
        if not file.exists() or file.stat().st_size < 2_000:
            return None
        samples, rate_hz = soundfile.read(file, dtype="float32")
    return resample(samples, rate_hz, SAMPLE_RATE)


@cache
def _installed_in_festival() -> frozenset[str]:
    if shutil.which("festival") is None:
        return frozenset()
    done = subprocess.run(["festival", "-b", "(print (voice.list))"], capture_output=True, check=True, timeout=60)
    return frozenset(done.stdout.decode("utf-8", "replace").strip().strip("()").split())


def library(seed: int, count: int, folder: Path, voices: Voices, processes: int) -> list[Wave]:
    """The longer ones of ``count`` utterances (more than 0.1 s), synthesised once and kept in ``folder``."""
    file = folder / f"speech-{seed}-{count}.npz"
    if not file.exists():
        with pool(processes) as executor:
            waves = list(executor.map(_utterance, [(seed, index, voices) for index in range(count)], chunksize=8))
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, flat=np.concatenate(waves), lengths=np.array([wave.shape[0] for wave in waves]))
        partial.replace(file)
    with np.load(file) as kept:
        return [wave for wave in np.split(kept["flat"], np.cumsum(kept["lengths"])[:-1]) if wave.shape[0] > 1_600]


def _utterance(task: tuple[int, int, Voices]) -> Wave:
    seed, index, voices = task
    return utterance(np.random.default_rng([seed, 77, index]), voices)

"""``docs/skew.md``: the training script's own lines for the filter change nothing, as the document says."""

from __future__ import annotations

import re

import torch
import torchaudio

from tests.support.audits import RATE, bursts
from tests.support.processes import ROOT
from tussis.shared.dsp.highpass import highpassed

TEXT = (ROOT / "docs" / "skew.md").read_text(encoding="utf-8")


def test_the_scripts_lines_filter_nothing_and_the_function_does() -> None:
    tried, filtered = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    wave = torch.from_numpy(bursts(2.0, peak=0.5, rumble=0.4))

    names = {"torchaudio": torchaudio, "waveform": wave.clone()}
    exec(tried, names)
    assert torch.equal(names["waveform"], wave)

    exec(filtered, names)
    assert not torch.equal(names["waveform"], wave)
    assert torch.equal(names["waveform"][0], highpassed(wave[0], 50.0))
    # The tone of 30 Hz loses most of its power.
    tone = torch.from_numpy(bursts(2.0, peak=1e-6, rumble=0.4))
    names["waveform"] = tone
    exec(filtered, names)
    assert names["waveform"][0, RATE:].var() < 0.2 * tone[0, RATE:].var()


def test_torchaudio_still_has_no_such_class() -> None:
    assert not hasattr(torchaudio.transforms, "HighpassBiquad")

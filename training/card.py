# ruff: noqa: E501
# Rows of Markdown tables cannot be wrapped.
"""Render ``docs/model-card.md`` from ``docs/model-card.json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from training import speech

#: The results of the previous version, for the card.
_VERSION_1: Final = """Version 1 (149,039
parameters, 7,200 scenes, a run that was interrupted several times) reached 0.9700 on the same test split. It had 34.8
false alarms per hour of everyday background, classified 36.7 % of the digits as coughs, and had the highest segment on
the cough in 95.5 % of the mixtures at 10 dB."""


@dataclass(frozen=True, slots=True)
class Aim:
    """A target for the model."""

    text: str
    value: Callable[[dict[str, Any]], float]
    reached: Callable[[float], bool]
    form: str


AIMS: Final = (
    Aim(
        "AUROC of the recording at least 0.995",
        lambda m: m["recordings"]["auroc"]["value"],
        lambda x: x >= 0.995,
        "{:.4f}",
    ),
    Aim(
        "of the cropped, padded and noise-floor probes at least 90 % keep their decision (the worst probe)",
        lambda m: min(one["kept"]["value"] for name, one in m["probes"].items() if name != "telephone band"),
        lambda x: x >= 0.90,
        "{:.1%}",
    ),
    Aim(
        "the highest segment is on the cough in at least 95 % of the mixtures (at 10 dB)",
        lambda m: m["localisation"]["10"]["highest_on_cough"]["value"],
        lambda x: x >= 0.95,
        "{:.1%}",
    ),
    Aim(
        "at most 10 false alarms per hour of everyday background without sneezes (no added noise)",
        lambda m: m["alarms"]["none"]["everyday"]["an_hour"]["value"],
        lambda x: x <= 10,
        "{:.1f}",
    ),
)


def rendered(measured: dict[str, Any]) -> str:
    """The text of the card, from the numbers of an evaluation."""
    return (
        "\n\n".join(
            [
                _head(measured),
                _use(),
                _data(measured),
                _training(measured),
                _reached(measured),
                _recordings(measured),
                _localisation(measured),
                _alarms(measured),
                _probes(measured),
                _formats(measured),
                _profiles(measured),
                _failures(measured),
            ]
        )
        + "\n"
    )


def _head(m: dict[str, Any]) -> str:
    model = m["model"]
    return f"""# Model card: {model["label"]}

A small detector of cough sounds for the preprocessing of Tussis. With it, `tussis analyze`, the demo and the tests give
meaningful results without further setup. For your application use a model of your own (`--model`).

**It detects the sound of a cough. It is not a diagnosis.** `python -m training evaluate` measured all numbers below
with the file with SHA-256 `{model["sha256"]}`. The file `docs/model-card.json` has the numbers.

| | |
| --- | --- |
| network | 4x-stride stem, three residual blocks, mean and maximum over time; attention over the segments |
| size | {model["parameters"]:,} parameters, {model["bytes"] / 1e6:.2f} MB of ONNX |
| speed | {model["ms_a_segment"]:.2f} ms per segment on one core (inference only; the machine also did other work) |
| input | one channel is used: the contract's three are copies; any number of recordings and segments |
| output | bag and segment probabilities and logits, divided by the temperatures {model["bag_temperature"]:g} and {model["segment_temperature"]:g}; {model["segment_offset"]:+g} is added to segment logits |
| profile | `documented` |
| threshold | {model["threshold"]:g} for recordings and, in the numbers below, for segments |
| licence of the weights | Apache-2.0 |"""


def _use() -> str:
    return """## Intended use and excluded use

Intended use: trying out Tussis; tests, audits, quantisation and benchmarks that need a model with meaningful results;
and a baseline for a model of your own.

Do not use it:

- for diagnosis, triage, screening or monitoring of patients
- to distinguish diseases, persons or kinds of cough
- to count coughs in a study, unless you have measured it on recordings like yours
- to monitor people without their knowledge

It was trained on induced coughs that people recorded themselves. Its behaviour on children, on spontaneous coughs, on
whooping cough, or at a distance in a ward is unknown."""


def _data(m: dict[str, Any]) -> str:
    r = m["recordings"]
    languages, variants = len(speech.ESPEAK_LANGUAGES), len(speech.ESPEAK_VARIANTS)
    return f"""## Data and licences

| | licence | used for |
| --- | --- | --- |
| covid19-cough dataset (https://github.com/covid19-cough/dataset): 1200 induced coughs by telephone and messenger | CC0 1.0 | train, val, test (the pack's split, 70/15/15 by recording) |
| ESC-10, K. J. Piczak (https://github.com/karoldvl/ESC-10), "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015; authors of the clips in the set's ATTRIBUTION.txt | CC BY 3.0 (single clips CC0 or CC BY) | folds 1 to 3 train, 4 val, 5 test |
| speech from espeak-ng ({languages} languages, {variants} variants), flite ({len(speech.FLITE_VOICES)} voices) and festival ({len(speech.FESTIVAL_VOICES)}, none of them under the GPL), at random rates, pitches and vocal tracts | output of the programs | train; val with voices that train never hears |
| tones, music, drums, knocks, claps, barks, syllables, breath, laughter, rustle, hiss from formulas (`training/sounds.py`) | ours | train, val |
| Free Spoken Digit Dataset | CC BY-SA 4.0 | evaluation only: threshold (one speaker) and test (another) |
| librosa's example clips: read speech, music, bird, whale | CC BY 3.0 and 4.0, public domain | test only |

Neither this repository nor the file with the weights contains recordings. The measured split has {r["coughs"]} coughs and
{r["backgrounds"]} backgrounds. It was measured once for each version, for its card. No choice was based on it. The source of the coughs has no
speaker identities, so one person may be in two splits."""


def _training(m: dict[str, Any]) -> str:
    trained = m["model"]["trained"]
    return f"""## Training

`python -m training` (seed {trained["seed"]}, {trained["scenes"]:,} scenes, {trained["epochs"]} epochs; on CPU, resumable). A scene is 0.35 to
16 s long. It has one to six events over silence, a noise floor, the quiet part of a cough recording, or everyday sound.
Half of the scenes contain a cough. Length, background, number of events, fades and cuts are drawn by the same rules for
both classes. Both classes pass through the same rooms, microphone responses, band-passes, noises, clipping, and telephone
and messenger codecs (MP3 at 8, 44.1 and 48 kHz, Opus, AMR, GSM, Vorbis, AAC, A-law, mu-law, G.722, G.726, ADPCM). The
reason is that the coughs of the pack were recorded through such channels and its backgrounds were not. The positions of
the coughs were found by their level. The losses are those of the recording, of the loudest segment, and of each segment
with a certain label. The weights are averaged.

An epoch uses half of the scenes. The scenes without a cough that were classified worst are always included. Each time,
level and pitch are changed, and a third of the scenes is mixed with another scene. A last stage of one minute trains the
layers after the features on recordings of up to 32 segments. These weights are from one complete run of that command: 46
minutes on two cores (AMD EPYC), including synthesis. {_VERSION_1}

The threshold, the temperatures and the offset of the segments were chosen on `val`. The threshold balances the two
classes over recordings, scenes and probes. The offset limits the alarms in the background of `val` without sneezes to at
most 6 per hour, provided that 95 % of the coughs keep a segment above the threshold. It makes segment probabilities lower
than the frequencies in a training scene, because coughs are rarer in an hour of audio. On `val` the network had an AUROC of {trained["recording_auroc"]:.4f} on
recordings, {trained["scene_auroc"]:.4f} on scenes, {trained["segment_auroc"]:.4f} on their segments, and {trained["probe_auroc"]:.4f} for the probes below
against recordings without a cough."""


def _reached(m: dict[str, Any]) -> str:
    lines = []
    for aim in AIMS:
        number = aim.value(m)
        lines.append(f"| {aim.text} | {aim.form.format(number)} | {'yes' if aim.reached(number) else '**no**'} |")
    return "## Targets and results\n\n| target | measured | reached |\n| --- | --- | --- |\n" + "\n".join(lines)


def _recordings(m: dict[str, Any]) -> str:
    r = m["recordings"]
    classes = "\n".join(
        f"| {kind} | {group['recordings']} | {_share(group['flagged'])} |" for kind, group in r["by_class"].items()
    )
    channels = "\n".join(
        f"| {name} | {group['recordings']} | {_share(group['flagged'])} | {_number(r['auroc_by_channel'][name])} |"
        for name, group in r["by_channel"].items()
    )
    return f"""## Recordings of the {m["split"]} split

Intervals are 95 %: bootstrap for AUROC, Wilson's for shares, exact Poisson for rates.

| | |
| --- | --- |
| AUROC | {_number(r["auroc"])} |
| without the spoken digits | {_number(r["auroc_without_digits"])} |
| AUROC of the highest segment alone | {_number(r["auroc_of_loudest_segment"])} |
| average precision | {r["average_precision"]:.4f} |
| sensitivity at the threshold | {_share(r["sensitivity"])} |
| specificity at the threshold | {_share(r["specificity"])} |
| calibration error after temperature (10 bins) | {r["calibration_error"]:.3f} |

![ROC and precision-recall curves](model-card.png)

| coughs through | recordings | classified as cough | AUROC against all backgrounds |
| --- | --- | --- | --- |
{channels}

| class without cough | recordings | classified as cough |
| --- | --- | --- |
{classes}"""


def _localisation(m: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {snr} dB | {one['mixtures']} | {_number(one['segment_auroc'])} | {_share(one['highest_on_cough'])} |"
        f" {_share(one['detected'])} |"
        for snr, one in m["localisation"].items()
    )
    return f"""## Coughs at known positions

One cough of at most 0.8 s at a random position in 8 s of background, for every class of background including sneezes.
The ratio is the power of the cough during the cough to the power of the background over all 8 s.

| ratio | mixtures | AUROC of segments | highest segment on the cough | recording classified as cough |
| --- | --- | --- | --- | --- |
{rows}"""


def _alarms(m: dict[str, Any]) -> str:
    levels = list(m["alarms"])
    hours = m["alarms"]["none"]["all"]["hours"]
    everyday = m["alarms"]["none"]["everyday"]["hours"]
    noisy = m["alarms"]["0"]["all"]["hours"]
    head = (
        "| class | hours | "
        + " | ".join("no noise" if one == "none" else f"noise {one} dB" for one in levels)
        + " | 15 s scenes classified as cough |"
    )
    rows = [
        f"| {kind} | {one['hours']:.2f} | "
        + " | ".join(_rate(m["alarms"][level][kind]["an_hour"]) for level in levels)
        + f" | {_share(one['scenes_flagged'])} |"
        for kind, one in m["alarms"]["none"].items()
    ]
    return f"""## False alarms per hour

{hours:.2f} hours of seeded scenes of 15 s, with the same time for each class, over sound of other classes that is 15 to
30 dB weaker; and {noisy:.2f} hours at each ratio of steady noise. Adjacent segments above the threshold are one alarm. `everyday` is
all classes without sneezes ({everyday:.2f} hours). Each class has few clips, which are repeated. So the real uncertainty is larger
than these intervals, and the rate of a class is the rate of its few clips.

{head}
| --- | --- | {" | ".join("---" for _ in levels)} | --- |
""" + "\n".join(rows)


def _probes(m: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {one['recordings']} | {_share(one['kept'])} | {_share(one['flagged'])} |"
        for name, one in m["probes"].items()
    )
    return f"""## Probes

The same coughs, changed so that only the cough can cause the result: the loudest 0.46 s alone, in digital silence, and
over noise 50 dB below the peak; the whole recording with silence or faint noise for 2 s before and after; with a noise
floor 35 dB below its peak; and limited to 300 to 3400 Hz.

| probe | recordings | of those classified as cough before the change, still classified as cough | of all, classified as cough |
| --- | --- | --- | --- |
{rows}"""


def _formats(m: dict[str, Any]) -> str:
    threshold = m["model"]["threshold"]
    low = [f"`{name}` ({value:.2f})" for name, value in m["formats"].items() if value <= threshold]
    plain = {name: value for name, value in m["formats"].items() if not name.startswith("variant_")}
    if not m["formats"]:
        return "## Formats\n\nMeasured on the test split only."
    return f"""## Formats

One cough of the pack in {len(m["formats"])} files, with `documented`. The {len(plain)} plain transcodings have probabilities from
{min(plain.values()):.3f} to {max(plain.values()):.3f}, and the variant at -30 dB has {m["formats"]["variant_quiet_minus30db.wav"]:.3f}.
Not classified as cough: {", ".join(low) if low else "none"}. In `variant_antiphase_stereo.wav` the
mean of the channels is silence, and in `variant_late_cough_20s.wav` the cough is after the 17.5 s that are analysed, so
neither has an audible cough."""


def _profiles(m: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| `{name}` | {_number(one['auroc'])} | {one['mean']:.3f} | {one['p99']:.2f} | {one['flipped']} of {one['recordings']} | {one['refused']} |"
        for name, one in m["profiles"].items()
    )
    return f"""## Other profiles

The model was trained with `documented`. With another profile its bag probability changes:

| profile | AUROC | mean shift | p99 shift | decisions flipped | refused |
| --- | --- | --- | --- | --- | --- |
{rows}"""


def _failures(m: dict[str, Any]) -> str:
    none = m["alarms"]["none"]
    classes = {kind: one for kind, one in none.items() if kind not in ("all", "everyday")}
    worst = sorted(classes, key=lambda kind: -classes[kind]["an_hour"]["value"])[:4]
    named = ", ".join(f"{kind} ({_rate(classes[kind]['an_hour'])})" for kind in worst)
    flagged = m["recordings"]["by_class"]
    misread = [
        f"{kind} ({_share(group['flagged'])})" for kind, group in flagged.items() if group["flagged"]["value"] > 0.1
    ]
    noisy = none["everyday"]["an_hour"]["value"], m["alarms"]["0"]["everyday"]["an_hour"]["value"]
    probe = min(m["probes"], key=lambda name: m["probes"][name]["kept"]["value"])
    digits = flagged.get("spoken_digit")
    speech = (
        f"- Human speech is mistaken for coughs: of {digits['recordings']} spoken digits, all of one speaker,\n"
        f"  {_share(digits['flagged'])} were classified as cough. The training used only synthesised speech.\n"
        if digits
        else ""
    )
    return f"""## Known failures

- Most false alarms per hour: {named}.
- Classes of which more than a tenth of the recordings were classified as cough: {", ".join(misread) if misread else "none"}.
- False alarms of everyday background change from {noisy[0]:.1f} per hour without added noise to {noisy[1]:.1f} with noise as loud as
  the background.
  Noise also hides coughs: of the mixtures at 0 dB above, {_share(m["localisation"]["0"]["detected"])} are classified as
  cough.
- Of recordings with one cough 10 dB above the power of the background, {_share(m["localisation"]["10"]["detected"])} are
  classified as cough. The highest segment finds the cough far more often than the decision for the recording.
{speech}- The probe with the most lost coughs: {probe} ({_share(m["probes"][probe]["kept"])} keep their decision).
- Every recording is normalised to its peak before the model runs. A click that is louder than the cough makes the cough
  quieter.
- The mean of the channels is taken after the normalisation. A silent second channel makes the recording 6 dB quieter, as
  in many telephone recordings of this data. In a sample of every second recording of `val` (163), 54 have two channels.
  The decision for one of them changed when the mean was scaled back to the full level.
- No laughter, throat clearing, snoring or conversation of people was used for training or test, only formulas and
  synthesisers. The only human speech that was measured is read speech and digits.
- The coughs come from two channels. Coughs of other sources were not measured. The probes are the nearest substitute.
- Some recordings in the cough set contain mainly speech or breath. They count as coughs.
- The positions of coughs were found by level, so a loud word in a cough recording was learnt as a cough."""


def _number(interval: dict[str, float]) -> str:
    return f"{interval['value']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"


def _share(interval: dict[str, float]) -> str:
    return f"{interval['value']:.1%} ({interval['low']:.1%} to {interval['high']:.1%})"


def _rate(interval: dict[str, float]) -> str:
    return f"{interval['value']:.1f} ({interval['low']:.1f} to {interval['high']:.1f})"

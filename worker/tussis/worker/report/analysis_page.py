"""The HTML report of one analysis."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from tussis.shared.events import EVENT_THRESHOLD
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis
from tussis.shared.text import probability
from tussis.worker.report import plots
from tussis.worker.report.assets import SCRIPT
from tussis.worker.report.evidence import Evidence, Sound
from tussis.worker.report.html import Markup, data_uri, details, facts, page, paragraph, section, table, text
from tussis.worker.report.words import counted, moment, seconds, warning

#: Segments in the table; `tussis results --json --segments` has all.
_ROWS: Final = 2_000
#: Points of the line of scores. Of more segments, the highest of several is shown.
POINTS: Final = 1_200


def analysis_page(evidence: Evidence) -> str:
    """The whole report as HTML."""
    analysis, sound = evidence.analysis, evidence.sound
    has_player = sound is not None and sound.wav is not None
    parts = [
        _head(evidence),
        section("Listen", _player(evidence)),
        section("Over time", *_time(evidence)),
        section("Cough events", *_events(evidence)) if analysis.decision is not None else "",
        section("Quality of the recording", _quality(analysis)) if analysis.warnings is not None else "",
        section("Numbers", facts(numbers(analysis))),
        section("Details", *_details(evidence)),
        f"<footer>{paragraph(_colophon(evidence))}</footer>",
    ]
    title = f"{headline(analysis)}: {analysis.uri}"
    return page(title, "\n".join(part for part in parts if part), SCRIPT if has_player else "")


def headline(analysis: Analysis) -> str:
    """The answer in one or two words."""
    if analysis.decision is not None:
        return "Cough" if analysis.decision else "No cough"
    return analysis.state.value.capitalize()


def summary(analysis: Analysis) -> str:
    """The answer in sentences."""
    if analysis.bag_probability is not None and analysis.threshold is not None:
        shown = probability(analysis.bag_probability, analysis.threshold)
        answer = f"The probability of a cough is {shown}. The threshold is {analysis.threshold:g}."
        if analysis.events is not None and analysis.cough_seconds is not None:
            answer += f" {counted(analysis.events, 'cough event')}, {analysis.cough_seconds:g} s in all."
        if analysis.truncated:
            answer += f" Only the first {analysis.analyzed_s:.1f} s were analysed."
        return answer
    if analysis.state in (AnalysisState.FAILED, AnalysisState.DISCARDED):
        return f"{analysis.error_class}: {analysis.error_message}"
    if analysis.state is AnalysisState.CANCELLED:
        return "The job was cancelled."
    return "The analysis has no result yet."


def _head(evidence: Evidence) -> str:
    analysis = evidence.analysis
    kind = ' class="cough"' if analysis.decision else ""
    head = f"<header>\n<h1{kind}>{text(headline(analysis))}</h1>\n{paragraph(analysis.uri)}\n"
    head += paragraph(summary(analysis))
    if analysis.warnings:
        items = "".join(f"<li>{text(warning(name))}</li>" for name in analysis.warnings)
        head += f'\n<div class="warn" role="note"><ul>{items}</ul></div>'
    return head + "\n</header>"


def _player(evidence: Evidence) -> str:
    sound = evidence.sound
    if sound is None:
        return paragraph(f"The recording is not available. {evidence.no_sound}")
    if sound.wav is None:
        return paragraph(evidence.no_player)
    player = (
        f'<audio controls preload="metadata" data-span="{evidence.span_s}" aria-label="The recording" '
        f'src="{data_uri("audio/wav", sound.wav)}"></audio>'
    )
    return player + paragraph(
        "The recording as it was decoded for the analysis: one channel at 16 kHz. "
        "Click a picture below to go to that time.",
        "soft",
    )


def _time(evidence: Evidence) -> list[str]:
    """The pictures with one time axis."""
    analysis, sound, span = evidence.analysis, evidence.sound, evidence.span_s
    if not span:
        return [paragraph("There is nothing to draw: the analysis has no scores, and the recording is not available.")]
    seek = sound is not None and sound.wav is not None
    parts = []
    duration = sound.duration_s if sound is not None else analysis.duration_s
    if duration is not None and duration > span:
        parts.append(paragraph(f"The analysed part: {seconds(span)} of {seconds(duration)}."))
    elif duration is not None and duration < span:
        parts.append(
            paragraph(f"The recording ends at {seconds(duration)}. The last segments are filled up with silence.")
        )
    if sound is None:
        parts.append(paragraph(f"The waveform and the mel image are missing. {evidence.no_sound}"))
    else:
        parts += _sound_figures(sound, span, seek=seek)
    if evidence.segments:
        parts.append(_scores(evidence, span, seek=seek))
    return parts


def _sound_figures(sound: Sound, span_s: float, *, seek: bool) -> list[str]:
    axis = plots.time_axis(span_s)
    reduced = (
        f" Reduced for display: each column is the mean of {sound.mel_column_s:.2f} s." if sound.mel_reduced else ""
    )
    return [
        plots.figure(
            "wave",
            f"Waveform of the first {span_s:.1f} s, normalised and filtered.",
            plots.waveform(sound.envelope, sound.envelope_column_s / span_s),
            "Waveform, normalised and filtered as for the model. "
            "Reduced for display: each column has the lowest and highest sample of "
            f"{sound.envelope_column_s:.2g} s.",
            below=axis,
            seek=seek,
        ),
        plots.figure(
            "mel",
            f"Mel image of the first {span_s:.1f} s, 50 Hz to 4 kHz, as the model gets it.",
            plots.image(sound.mel_png, sound.span_s / span_s),
            "Mel image as the model gets it, 50 Hz (bottom) to 4 kHz (top). The model gets one image for each segment, "
            "with low frequencies at the top and an empty margin. Each fourth image is shown, without its margin."
            + reduced,
            below=axis,
            seek=seek,
        ),
    ]


def _scores(evidence: Evidence, span_s: float, *, seek: bool) -> str:
    segments, events = evidence.segments, evidence.events
    points, each = score_points(evidence)
    best = max(segments, key=lambda segment: segment.probability)
    label = (
        f"Probabilities of {counted(len(segments), 'segment')} over {span_s:.1f} s. The highest is "
        f"{probability(best.probability)} from {best.start_s:.1f} to {best.end_s:.1f} s. "
        f"{counted(len(events), 'cough event')}."
    )
    inside = (
        plots.bands([(event.start_s / span_s, event.end_s / span_s) for event in events], "fill-event")
        + plots.curve([(at / span_s, value) for at, value in points])
        + plots.level_line(EVENT_THRESHOLD, f"events {EVENT_THRESHOLD:g}")
    )
    caption = (
        "Probability of each segment of 2 s, drawn at its middle, from 0 (bottom) to 1 (top). Cough events are shaded. "
        "An event needs a probability above the dashed line in every segment that covers it."
    )
    if each > 1:
        caption += f" Reduced for display: each point is the highest of {each} segments."
    return plots.figure("scores", label, inside, caption, below=plots.time_axis(span_s), seek=seek)


def score_points(evidence: Evidence) -> tuple[list[tuple[float, float]], int]:
    """Middle and probability of each segment, or of the highest of several; and the number of segments for a point."""
    segments = evidence.segments
    each = -(-len(segments) // POINTS) if segments else 1
    groups = [segments[first : first + each] for first in range(0, len(segments), each)]
    tops = [max(group, key=lambda segment: segment.probability) for group in groups]
    return [((top.start_s + top.end_s) / 2, top.probability) for top in tops], each


def _events(evidence: Evidence) -> list[str]:
    if not evidence.events:
        return [paragraph("No cough event.")]
    playable = evidence.sound is not None and evidence.sound.wav is not None
    rows = [
        (
            Markup(f'<button data-at="{event.start_s}">{event.start_s:.1f} s</button>')
            if playable
            else f"{event.start_s:.1f} s",
            f"{event.end_s:.1f} s",
            probability(event.peak),
            probability(event.mean),
        )
        for event in evidence.events[:_ROWS]
    ]
    explained = (
        "A cough event is a bout of one or more coughs. Its times are multiples of 0.5 s. The numbers are its highest "
        "and its mean probability."
    )
    if playable:
        explained += " A button plays the recording from the start of the event."
    return [
        paragraph(explained, "soft"),
        table("Cough events", ("start", "end", "highest", "mean"), rows, range(4)),
        _cut(len(evidence.events), "events"),
    ]


def _quality(analysis: Analysis) -> str:
    levels = [
        ("peak", "digital silence" if analysis.peak_dbfs is None else f"{analysis.peak_dbfs:.1f} dBFS"),
        ("level (RMS)", "digital silence" if analysis.rms_dbfs is None else f"{analysis.rms_dbfs:.1f} dBFS"),
        ("clipped samples", None if analysis.clipped_share is None else f"{100 * analysis.clipped_share:.3f} %"),
        ("DC offset", None if analysis.dc_offset is None else f"{analysis.dc_offset:.4f} of full scale"),
        ("warnings", ", ".join(analysis.warnings or ()) or "none"),
    ]
    return facts(levels)


def numbers(analysis: Analysis) -> list[tuple[str, object]]:
    """The numbers of an analysis, with the names that a reader sees. A value of None is unknown."""
    has_result = analysis.decision is not None
    return [
        ("decision", headline(analysis).lower() if has_result else None),
        ("bag probability", analysis.bag_probability),
        ("threshold", analysis.threshold if has_result else None),
        ("model", analysis.model),
        ("profile", analysis.profile or None),
        ("coverage", analysis.coverage),
        ("duration", seconds(analysis.duration_s)),
        ("analysed", seconds(analysis.analyzed_s)),
        ("segments", _of(analysis.segments, analysis.segments_total)),
        ("decoder", analysis.decoder),
        ("source", _source(analysis)),
        ("size", None if analysis.size_bytes is None else f"{analysis.size_bytes:,} bytes"),
        ("entity tag", analysis.etag or None),
        ("version id", analysis.version_id),
        ("analysis id", analysis.id),
        ("job id", analysis.job_id),
        ("enqueued", moment(analysis.enqueued_at)),
        ("first attempt", moment(analysis.created_at)),
        ("last attempt", moment(analysis.started_at)),
        ("finished", moment(analysis.finished_at)),
        ("attempts", analysis.attempts),
        ("worker", f"{analysis.worker} ({analysis.device})"),
        *_software(analysis),
        ("stages", ", ".join(f"{stage} {took:,.1f} ms" for stage, took in analysis.timings_ms.items()) or None),
    ]


def _software(analysis: Analysis) -> list[tuple[str, object]]:
    used = {} if analysis.software is None else asdict(analysis.software)
    return [(name.replace("_", " "), value or None) for name, value in used.items()]


def _source(analysis: Analysis) -> str | None:
    if analysis.codec is None:
        return None
    return (
        f"{analysis.codec} in {analysis.container}, {analysis.rate_hz:,} Hz, "
        f"{counted(analysis.channels or 0, 'channel')}"
    )


def _of(number: int | None, total: int | None) -> str | None:
    return None if number is None else f"{number:,} of {total:,}"


def _details(evidence: Evidence) -> list[str]:
    parts = []
    if evidence.segments:
        rows = [
            (number, f"{segment.start_s:.1f} s", f"{segment.end_s:.1f} s", probability(segment.probability))
            for number, segment in enumerate(evidence.segments[:_ROWS])
        ]
        parts.append(
            details(
                f"Segments ({len(evidence.segments):,})",
                table("Segments", ("segment", "start", "end", "probability"), rows, range(4))
                + _cut(len(evidence.segments), "segments"),
            )
        )
    if evidence.analysis.metadata:
        shown = json.dumps(evidence.analysis.metadata, indent=2, ensure_ascii=False)
        parts.append(details("Metadata", "<pre>" + "\n".join(text(line) for line in shown.splitlines()) + "</pre>"))
    if evidence.others:
        rows_of_others = [
            (one.id, moment(one.created_at), headline(one), one.model or "", one.profile, one.coverage, one.etag)
            for one in evidence.others
        ]
        headings = ("analysis id", "first attempt", "answer", "model", "profile", "coverage", "entity tag")
        parts.append(
            details(
                f"Other analyses of this key ({len(evidence.others)})",
                table("Other analyses of this key", headings, rows_of_others, (0,)),
            )
        )
    return parts or [paragraph("None.")]


def _cut(count: int, name: str) -> str:
    return "" if count <= _ROWS else paragraph(f"The first {_ROWS:,} of {count:,} {name}.", "soft")


def _colophon(evidence: Evidence) -> str:
    contains = " It contains the recording." if evidence.sound is not None and evidence.sound.wav is not None else ""
    return (
        f"Made by Tussis {evidence.version} at {moment(evidence.made_at)}. This file loads nothing from a network."
        f"{contains} A result is the output of a model. It is not a diagnosis."
    )

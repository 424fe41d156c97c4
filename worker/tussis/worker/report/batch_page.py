"""The HTML report of many analyses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

from tussis.worker.evaluation.curves import SWEEP, Confusion, confusion, curves
from tussis.worker.report import plots
from tussis.worker.report.analysis_page import headline
from tussis.worker.report.batch import BINS, COUGH, FAILED, NO_COUGH, Batch, took_s
from tussis.worker.report.html import details, facts, page, paragraph, section, table, text
from tussis.worker.report.words import counted, moment, seconds, warning

#: More days are drawn and listed as months.
_DAYS: Final = 92
_KINDS: Final = ((COUGH, "cough"), (NO_COUGH, "no-cough"), (FAILED, "failed"))


def batch_page(batch: Batch, filters: Sequence[str], made_at: datetime, version: str) -> str:
    """The whole report as HTML. ``filters`` are plain text, one for each filter."""
    parts = [
        f"<header>\n<h1>{counted(batch.total, 'analysis', 'analyses')}</h1>\n"
        + paragraph("Filters: " + (", ".join(filters) if filters else "none: all analyses") + ".")
        + "\n</header>",
        section("Summary", facts(_summary(batch))),
        section("Probabilities", *_histogram(batch)),
        section("Results for each day", *_days(batch)),
        section("Against the labels", *_labelled(batch)) if batch.labels else "",
        section("Warnings about the quality", *_warnings(batch)),
        section("Failures by class", *_failures(batch)),
        section("Slowest analyses", *_slowest(batch)),
        f"<footer>{paragraph(_colophon(made_at, version))}</footer>",
    ]
    return page("Tussis: analyses", "\n".join(part for part in parts if part))


def _summary(batch: Batch) -> list[tuple[str, object]]:
    return [
        ("results", f"{batch.results:,}"),
        *((state, f"{count:,}") for state, count in sorted(batch.states.items()) if state != "succeeded"),
        ("models", "; ".join(f"{name}: {count:,}" for name, count in batch.models.most_common()) or None),
        ("recorded", seconds(batch.recorded_s)),
        ("analysed", seconds(batch.analyzed_s)),
        ("cough events", f"{batch.events:,}, {batch.cough_seconds:,g} s in all"),
    ]


def _histogram(batch: Batch) -> list[str]:
    if not batch.results:
        return [paragraph("No results.")]
    columns = [[(counts[name], f"fill-{kind}") for name, kind in _KINDS[:2]] for counts in batch.histogram]
    drawn = plots.stacks(columns) + "".join(plots.upright_line(threshold) for threshold in batch.thresholds)
    listed = " and ".join(f"{threshold:g}" for threshold in sorted(batch.thresholds))
    highest = max(counts.total() for counts in batch.histogram)
    rows = [
        (f"{index / BINS:.2f} to {(index + 1) / BINS:.2f}", counts[COUGH], counts[NO_COUGH])
        for index, counts in enumerate(batch.histogram)
        if counts
    ]
    return [
        _legend(_KINDS[:2]),
        plots.figure(
            "bars",
            f"Histogram of {counted(batch.results, 'bag probability', 'bag probabilities')}. The table has them.",
            drawn,
            f"Bag probabilities of the results. The highest column has {highest:,}. "
            f"The dashed line is the threshold: {listed}.",
            below=plots.share_axis(),
        ),
        details("Histogram as a table", table("Histogram", ("probability", COUGH, NO_COUGH), rows, (1, 2))),
    ]


def _days(batch: Batch) -> list[str]:
    if not batch.days:
        return [paragraph("No results.")]
    periods, name = _periods(batch.days)
    columns = [[(counts[key], f"fill-{kind}") for key, kind in _KINDS] for _, counts in periods]
    highest = max(counts.total() for _, counts in periods)
    rows = [(label, *(counts[key] for key, _ in _KINDS)) for label, counts in periods if counts]
    first, last = periods[0][0], periods[-1][0]
    return [
        _legend(_KINDS),
        plots.figure(
            "bars",
            f"Results and failures for each {name} from {first} to {last}; the table has them.",
            plots.stacks(columns),
            f"Results and failures for each {name} (UTC), from {first} to {last}. The highest column has {highest:,}.",
        ),
        details(
            f"Each {name} as a table", table(f"For each {name}", (name, *(key for key, _ in _KINDS)), rows, (1, 2, 3))
        ),
    ]


def _periods(days: dict[date, Counter[str]]) -> tuple[list[tuple[str, Counter[str]]], str]:
    """Each day or each month from the first to the last one, also without results; and "day" or "month"."""
    first, last = min(days), max(days)
    length = (last - first).days + 1
    if length <= _DAYS:
        every = [first + timedelta(days=number) for number in range(length)]
        return [(day.isoformat(), days.get(day, Counter())) for day in every], "day"
    months = range(12 * first.year + first.month - 1, 12 * last.year + last.month)
    counted_by: dict[str, Counter[str]] = {f"{month // 12:04}-{month % 12 + 1:02}": Counter() for month in months}
    for day, counts in days.items():
        counted_by[f"{day:%Y-%m}"].update(counts)
    return list(counted_by.items()), "month"


def _labelled(batch: Batch) -> list[str]:
    scored = list(batch.scored.values())
    coughs = sum(is_cough for _, is_cough in scored)
    missing = len(batch.labels) - len(scored)
    told = (
        f"{counted(len(scored), 'labelled recording')} with a result: {coughs:,} with a cough, "
        f"{len(scored) - coughs:,} without. {counted(missing, 'label')} without a result among these analyses. "
        "Of several results of one recording the newest counts."
    )
    parts = [paragraph(told)]
    if len(batch.models) > 1:
        parts.append(paragraph("The results are from several models, profiles or coverages.", "warn"))
    if not scored:
        return parts
    right = sum(batch.decided[uri] == is_cough for uri, (_, is_cough) in batch.scored.items())
    parts.append(paragraph(f"{right:,} of {len(scored):,} decisions agree with the label ({right / len(scored):.1%})."))
    both = curves(scored)
    if both is None:
        parts.append(paragraph("There are no curves: they need recordings with a cough and recordings without."))
    else:
        parts += [
            plots.figure(
                "square",
                f"ROC curve, area {both.auroc:.3f}.",
                plots.diagonal() + plots.curve(both.roc),
                f"ROC: sensitivity (upwards) against 1 - specificity. Area under the curve: {both.auroc:.3f}.",
            ),
            plots.figure(
                "square",
                f"Precision-recall curve, average precision {both.average_precision:.3f}.",
                plots.curve(both.precision_recall),
                "Precision (upwards) against recall, both from 0 to 1. "
                f"Average precision: {both.average_precision:.3f}.",
            ),
        ]
    thresholds = sorted({*SWEEP, *batch.thresholds})
    rows = [_sweep_row(confusion(scored, threshold), threshold in batch.thresholds) for threshold in thresholds]
    headings = ("threshold", "found", "false alarms", "missed", "sensitivity", "specificity", "precision", "F1")
    parts.append(paragraph("Decisions at other thresholds. The threshold of the results is marked with *.", "soft"))
    parts.append(table("Threshold sweep", headings, rows, range(len(headings))))
    return parts


def _sweep_row(counts: Confusion, is_used: bool) -> tuple[object, ...]:
    shares = (counts.sensitivity, counts.specificity, counts.precision, counts.f1)
    return (
        f"{counts.threshold:g}{' *' if is_used else ''}",
        counts.true_positive,
        counts.false_positive,
        counts.false_negative,
        *("" if share is None else f"{share:.3f}" for share in shares),
    )


def _warnings(batch: Batch) -> list[str]:
    if not batch.warnings:
        return [paragraph("None.")]
    rows = [
        (name, f"{count:,}", f"{count / batch.results:.1%}", warning(name))
        for name, count in batch.warnings.most_common()
    ]
    return [table("Warnings", ("warning", "results", "share", "meaning"), rows, (1, 2))]


def _failures(batch: Batch) -> list[str]:
    if not batch.failures:
        return [paragraph("None.")]
    rows = [
        (
            name,
            f"{failures.count:,}",
            moment(failures.newest.finished_at),
            failures.newest.id,
            failures.newest.uri,
            failures.newest.error_message,
        )
        for name, failures in batch.failures_by_class()
    ]
    headings = ("error class", "failures", "newest", "its id", "its recording", "its message")
    return [table("Failures by class", headings, rows, (1, 3))]


def _slowest(batch: Batch) -> list[str]:
    slowest = batch.slowest()
    if not slowest:
        return [paragraph("None.")]
    rows = []
    for analysis in slowest:
        stage = max(analysis.timings_ms.items(), key=lambda item: item[1], default=None)
        rows.append(
            (
                f"{took_s(analysis):,.2f} s",
                "" if stage is None else f"{stage[0]}, {stage[1]:,.0f} ms",
                seconds(analysis.duration_s) or "",
                headline(analysis),
                analysis.id,
                analysis.uri,
            )
        )
    headings = ("last attempt", "longest stage", "duration", "answer", "analysis id", "recording")
    return [table("Slowest analyses", headings, rows, (0, 4))]


def _legend(kinds: Sequence[tuple[str, str]]) -> str:
    shown = " ".join(f'<span class="key key-{kind}"></span>{text(name)}' for name, kind in kinds)
    return f'<p class="soft">{shown}</p>'


def _colophon(made_at: datetime, version: str) -> str:
    return (
        f"Made by Tussis {version} at {moment(made_at)}. This file loads nothing from a network. "
        "A result is the output of a model. It is not a diagnosis."
    )

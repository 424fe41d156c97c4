"""The text of ``tussis evaluate``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tussis.shared.events import EVENT_THRESHOLD
from tussis.shared.text import printable
from tussis.worker.cli.evaluate_answers import Gathered
from tussis.worker.evaluation.evaluation import Case, Chosen, Decisions, Evaluation, Group
from tussis.worker.evaluation.events import TOLERANCES_S
from tussis.worker.evaluation.measures import TEMPERATURES, Interval
from tussis.worker.local.terminal import console, plain

if TYPE_CHECKING:
    from rich.table import Table

_NAMED: Final = 3
"""Recordings that a line names."""
_WIDE: Final = 125
"""Least width of a terminal for tables with intervals."""
_USED: Final = "used above"
_CAVEAT: Final = "The threshold was chosen and measured on the same recordings. Measure it on others before you use it."


def print_evaluation(done: Evaluation, cases: Sequence[Case], gathered: Gathered) -> None:
    """Print everything on standard output."""
    screen = console()

    wide = screen.width >= _WIDE

    def say(*lines: str) -> None:
        for line in lines:
            screen.print(printable(line), markup=False)

    def section(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        say("", title)
        screen.print(_table(headings, rows))

    say(*_head(done, cases, gathered))
    screen.print(_table(("", "value", "95 % interval", "from"), _summary(done.all)))
    say(*_notes(done))
    section(f"Decisions at thresholds (* {_USED})", _DECISIONS, _sweep(done, wide))
    if done.event_sweep:
        section(f"Cough events at thresholds of bins (* {_USED})", _EVENTS, _event_rows(done, wide))
    for column, groups in done.groups.items():
        section(f"By {column}", _GROUPS, _groups(groups, wide))
    section("Calibration", ("probability", "recordings", "mean", "share with a cough"), _reliability(done))
    say(*_calibration(done), *_choices(done))
    if not wide:
        say("A wider terminal, a pipe and --json also have the intervals of the tables.")


def _head(done: Evaluation, cases: Sequence[Case], gathered: Gathered) -> Iterable[str]:
    found = done.all
    setups = sorted({case.scored.setup for case in cases})
    yield (
        f"{cases[0].scored.model}, {' and '.join(setups)}: {found.recordings:,} labelled recordings, {found.coughs:,} "
        f"with a cough and {found.recordings - found.coughs:,} without, {found.hours:,.2f} hours analysed."
    )
    if len(setups) > 1:
        yield "The results are from several profiles or coverages: compare them with care."
    if gathered.missing:
        yield f"Labels without a recording or a result: {_named(gathered.missing)}."
    if gathered.unlabelled:
        yield f"Recordings without a label: {_named(gathered.unlabelled)}."
    if gathered.failed:
        yield f"Recordings that failed: {_named([f'{uri} ({why})' for uri, why in gathered.failed.items()])}."


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED])
    return f"{len(names):,}: {listed}" + (f" and {more:,} more" if more > 0 else "")


def _summary(found: Group) -> Iterable[tuple[str, ...]]:
    decisions, counts = found.decisions, found.decisions.counts
    others = found.recordings - found.coughs
    yield ("AUROC", *_apart(found.auroc), "")
    yield ("average precision", *_apart(found.average_precision), "")
    yield (f"decisions above {counts.threshold:g}", "", "", "")
    yield (
        "  sensitivity",
        *_apart(decisions.sensitivity),
        f"{counts.true_positive:,} of {found.coughs:,} coughs found",
    )
    yield ("  specificity", *_apart(decisions.specificity), f"{counts.true_negative:,} of {others:,} others")
    flagged = counts.true_positive + counts.false_positive
    yield ("  precision", *_apart(decisions.precision), f"{counts.true_positive:,} of {flagged:,} decisions cough")
    yield (
        "  false alarms an hour",
        *_apart(decisions.false_alarms_an_hour, 2),
        f"{counts.false_positive:,} in {found.hours_without_cough:,.2f} hours without a cough",
    )
    if found.events is None:
        return
    events, quality = found.events, found.events.quality
    yield (f"cough events, bins above {events.threshold:g}", "", "", f"{events.recordings:,} recordings")
    if quality.bouts:
        for index, tolerance_s in enumerate(TOLERANCES_S):
            yield (
                f"  F1 at {tolerance_s:g} s",
                *_apart(quality.f1_intervals[index]),
                f"precision {_number(quality.precision[index].value)}, recall {_number(quality.recall[index].value)}",
            )
        yield ("  bouts found", _number(quality.found), "", f"an event overlaps them, of {quality.bouts:,} bouts")
        yield ("  onset error, median", f"{_number(quality.onset_error_s, 2)} s", "", "")
    yield (
        "  false events an hour",
        *_apart(events.false_an_hour, 2),
        f"{quality.false:,} of {quality.events:,} events in {events.hours:,.2f} hours",
    )


def _notes(done: Evaluation) -> Iterable[str]:
    found = done.all
    if found.coughs in (0, found.recordings):
        kind = "a cough" if found.coughs else "no cough"
        yield f"All recordings have {kind}: AUROC, average precision and temperature need both kinds."
    if found.events is None:
        yield "No cough events are measured: no recording has known places of its coughs and stored segments."
    elif found.events.recordings < found.recordings:
        yield (
            f"Cough events are measured on {found.events.recordings:,} of {found.recordings:,} recordings: those with "
            "lines in --events, and those without a cough, if their segments are stored."
        )
    if done.late_bouts:
        yield f"{done.late_bouts:,} labelled bouts begin after the analysed part and are not measured."


_SHARES: Final = ("sensitivity", "specificity", "precision", "false an hour")
_DECISIONS: Final = ("threshold", "found", "missed", "false", *_SHARES)


def _sweep(done: Evaluation, wide: bool) -> Iterable[tuple[str, ...]]:
    used = done.all.decisions.counts.threshold
    for one in done.sweep:
        counts = one.counts
        yield (
            f"{counts.threshold:g}{' *' if counts.threshold == used else ''}",
            f"{counts.true_positive:,}",
            f"{counts.false_negative:,}",
            f"{counts.false_positive:,}",
            *_shares(one, wide),
        )


def _shares(one: Decisions, wide: bool = True) -> tuple[str, ...]:
    shares = (one.sensitivity, one.specificity, one.precision)
    return (*(_together(share, wide) for share in shares), _together(one.false_alarms_an_hour, wide, 2))


_EVENTS: Final = ("threshold", *(f"F1 at {one:g} s" for one in TOLERANCES_S), "bouts found", "false an hour")


def _event_rows(done: Evaluation, wide: bool) -> Iterable[tuple[str, ...]]:
    for one in done.event_sweep:
        yield (
            f"{one.threshold:g}{' *' if one.threshold == EVENT_THRESHOLD else ''}",
            *(_together(f1, wide) for f1 in one.quality.f1_intervals),
            _number(one.quality.found),
            _together(one.false_an_hour, wide, 2),
        )


_GROUPS: Final = ("", "recordings", "coughs", "AUROC", *_SHARES)


def _groups(groups: Mapping[str, Group], wide: bool) -> Iterable[tuple[str, ...]]:
    for value, one in groups.items():
        yield (
            value or "(empty)",
            f"{one.recordings:,}",
            f"{one.coughs:,}",
            _together(one.auroc, wide),
            *_shares(one.decisions, wide),
        )


def _reliability(done: Evaluation) -> Iterable[tuple[str, ...]]:
    for one in done.calibration.reliability:
        yield (
            f"{one.low:.1f} to {one.high:.1f}",
            f"{one.recordings:,}",
            _number(one.mean_probability),
            _together(one.share),
        )


def _calibration(done: Evaluation) -> Iterable[str]:
    found = done.calibration
    line = f"Expected calibration error: {_number(found.error)}."
    if not math.isnan(found.temperature):
        line += (
            f" Temperature: {found.temperature:g}; with the logits divided by it, the error is "
            f"{_number(found.error_at_temperature)}."
        )
        # The fit rounds its result.
        if not TEMPERATURES[0] * 1.001 < found.temperature < TEMPERATURES[1] * 0.999:
            line += " This is the end of the range that is tried."
    yield line


def _choices(done: Evaluation) -> Iterable[str]:
    precision, alarms, events = done.for_precision, done.for_false_alarms, done.for_false_events
    if precision is not None:
        yield f"Threshold for a precision of {precision.wanted:g}: {_chosen(precision)}"
    if alarms is not None:
        yield f"Threshold for {alarms.wanted:g} false alarms an hour at most: {_chosen(alarms)}"
    if events is not None:
        yield f"Threshold of bins for {events.wanted:g} false cough events an hour at most: {_chosen(events)}"
    if any(one is not None and one.threshold is not None for one in (precision, alarms, events)):
        yield _CAVEAT


def _chosen(one: Chosen) -> str:
    if one.threshold is None:
        return "none reaches it."
    if one.decisions is not None:
        sensitivity, specificity, precision, alarms = _shares(one.decisions)
        return (
            f"{one.threshold:g}. Sensitivity {sensitivity}, specificity {specificity}, precision {precision}, false "
            f"alarms an hour {alarms}."
        )
    assert one.events is not None
    quality = one.events.quality
    found = f" Bouts found {_number(quality.found)}, F1 {_together(quality.f1_interval)}." if quality.bouts else ""
    return f"{one.threshold:g}. False events an hour {_together(one.events.false_an_hour, digits=2)}.{found}"


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def _apart(one: Interval, digits: int = 3) -> tuple[str, str]:
    if math.isnan(one.value):
        return "-", ""
    return _number(one.value, digits), f"{_number(one.low, digits)} to {_number(one.high, digits)}"


def _together(one: Interval, wide: bool = True, digits: int = 3) -> str:
    value, interval = _apart(one, digits)
    return f"{value} ({interval})" if interval and wide else value


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(plain, row))
    return table

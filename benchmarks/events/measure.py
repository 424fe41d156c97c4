"""Choose the parameters of each rule on the splits train and val, and measure it once on test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.events.rules import MINIMUM, RULES, Parameters, Rule, ideal
from benchmarks.events.scores import Corpus, Scored, scored
from training.events import Span
from tussis.shared.cores import available_cores
from tussis.shared.events import EVENT_THRESHOLD
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.evaluation.events import BOUT_PAUSE_S, TOLERANCES_S, EventMeasures, compared, quality

_SEED: Final = 1
_TUNE, _TEST, _QUICK = 120, 240, 8
#: Thresholds of the rule of the product in the notes.
_SWEEP: Final = (0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75)
#: Bins that start in this part of a recording are covered by fewer than four segments, seconds.
_EDGE_S: Final = 1.5


def measure(
    *, data: Path, model: Path, cache: Path, quick: bool, command: str, say: Callable[[str], None]
) -> Measurements:
    """Measure all rules.

    Args:
        data: folder of the audio pack.
        model: ONNX file with its manifest.
        cache: folder of the segment probabilities, which take most of the time.
        quick: few recordings.
        command: the command line that repeats the measurement.
        say: shows progress.
    """
    processes = available_cores()
    tune_count, test_count = (_QUICK, _QUICK) if quick else (_TUNE, _TEST)
    say("score train and val")
    tune = scored(Corpus(("train", "val"), tune_count, _SEED), model, data, cache, processes)
    say("score test")
    test = scored(Corpus(("test",), test_count, _SEED), model, data, cache, processes)
    say("choose parameters")
    chosen = {rule.name: best(rule, tune) for rule in RULES}
    rows = [_row("ideal bins (they know the truth)", "-", judged(tune, ideal), judged(test, ideal))]
    measured = {
        rule.name: (_judged(tune, rule, chosen[rule.name]), _judged(test, rule, chosen[rule.name])) for rule in RULES
    }
    rows += [_row(rule.name, rule.described(chosen[rule.name]), *measured[rule.name]) for rule in RULES]
    product = _judged(tune, MINIMUM, (EVENT_THRESHOLD,))
    return Measurements(
        title="Cough events: rules for overlapping segments, on mixtures with known bouts",
        command=command,
        columns=(
            Column("rule"),
            Column("parameters"),
            Column("F1 at 0.25 s, tuning", digits=3),
            Column("F1 at 0.5 s, tuning", digits=3),
            Column("F1 at 0.25 s", digits=3),
            Column("F1 at 0.5 s", digits=3),
            Column("95 %"),
            Column("bouts found", "%", 1),
            Column("onset error", "s", 2),
            Column("events"),
            Column("merging events"),
            Column("false events", "per hour", 1),
            Column("event seconds / bout seconds", digits=2),
        ),
        rows=tuple(rows),
        hardware=hardware(),
        notes=(*_corpora(tune, test), *_edge(test, chosen[MINIMUM.name]), *_sweep(tune)),
        verdicts=(
            TargetCheck(
                "the rule of the product: mean F1 on the tuning splits, relative to the best rule",
                product.score / max(one.score for one, _ in measured.values()),
                0.99,
                void="too few recordings: measure without --quick" if quick else "",
            ),
        ),
    )


def best(rule: Rule, recordings: Sequence[Scored]) -> Parameters:
    """The parameters with the highest mean F1 over both tolerances."""
    return max(rule.grid, key=lambda parameters: _judged(recordings, rule, parameters).score)


def judged(recordings: Iterable[Scored], find: Callable[[Scored], Sequence[Span]]) -> EventMeasures:
    """The quality of a rule on recordings."""
    kept = list(recordings)
    return quality([compared(one.bouts, find(one)) for one in kept], sum(one.duration_s for one in kept) / 3600)


def _judged(recordings: Iterable[Scored], rule: Rule, parameters: Parameters) -> EventMeasures:
    return judged(recordings, lambda one: rule.find(one, parameters))


def _row(name: str, parameters: str, tune: EventMeasures, test: EventMeasures) -> tuple[Cell, ...]:
    interval = f"{test.f1_interval.low:.3f} to {test.f1_interval.high:.3f}"
    return (
        name,
        parameters,
        *tune.f1,
        *test.f1,
        interval,
        100 * test.found,
        test.onset_error_s,
        test.events,
        test.merging,
        test.false_per_hour,
        test.seconds_ratio,
    )


def _corpora(tune: Sequence[Scored], test: Sequence[Scored]) -> Iterable[str]:
    for name, recordings in (("train and val, for the choice of parameters", tune), ("test, measured once", test)):
        yield (
            f"{name}: {len(recordings)} recordings, {sum(one.duration_s for one in recordings) / 3600:.2f} hours,"
            f" {sum(len(one.bouts) for one in recordings)} bouts,"
            f" {sum(not one.bouts for one in recordings)} recordings without one"
        )
    yield (
        f"a bout is one trimmed clip, or several with pauses below {BOUT_PAUSE_S:g} s. An event matches a bout if their"
        f" starts differ by at most {' or '.join(f'{one:g} s' for one in TOLERANCES_S)}. Parameters have the highest"
        " mean F1 over both tolerances. The onset error is the median absolute difference of the starts of a bout and"
        " of the first event that overlaps it"
    )


def _edge(test: Sequence[Scored], parameters: Parameters) -> Iterable[str]:
    for name, early in (("in the first 1.5 s", True), ("later", False)):
        errors = [
            events[0][0] - bout[0]
            for one in test
            for bout in one.bouts
            if (bout[0] < _EDGE_S) is early
            for events in [
                [event for event in MINIMUM.find(one, parameters) if event[0] < bout[1] and event[1] > bout[0]]
            ]
            if events
        ]
        if errors:
            low, middle, high = np.percentile(errors, [10, 50, 90])
            yield (
                f"onset error of {MINIMUM.name}, bouts that start {name}: median {middle:+.2f} s, 80 % between"
                f" {low:+.2f} and {high:+.2f} s ({len(errors)} bouts)"
            )


def _sweep(tune: Sequence[Scored]) -> Iterable[str]:
    for threshold in _SWEEP:
        found = _judged(tune, MINIMUM, (threshold,))
        yield (
            f"{MINIMUM.name}, threshold {threshold:g}, tuning splits: F1 {found.f1[0]:.3f} and {found.f1[1]:.3f},"
            f" {100 * found.found:.1f} % of the bouts found, {found.false_per_hour:.1f} false events per hour"
        )

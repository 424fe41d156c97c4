"""What ``tussis models compare`` prints: as text, and as a JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tussis.shared.text import printable, probability

if TYPE_CHECKING:
    from tussis.worker.modelling.comparison import Answered, AnswerPair, ComparedModel, Shifts, Summary
    from tussis.worker.modelling.labelled import LabelledComparison
    from tussis.worker.modelling.timing import Speed

#: Recordings in the printed list. The JSON object has all.
_WORST: Final = 20


@dataclass(frozen=True, slots=True)
class Side:
    """The facts about one of the two models."""

    file: str
    """As in the command."""
    model: str
    sha256: str
    numbers: str
    size_bytes: int
    profile: str
    coverage: str
    threshold: float

    @classmethod
    def of(cls, file: str, path: Path, model: ComparedModel) -> Side:
        import onnx

        from tussis.worker.modelling.quantization.graph import number_type

        manifest = model.detector.manifest
        return cls(
            file=file,
            model=manifest.label,
            sha256=manifest.sha256,
            numbers=number_type(onnx.load_model(path)),
            size_bytes=path.stat().st_size,
            profile=model.profile.name,
            coverage=model.coverage.value,
            threshold=manifest.threshold,
        )


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """All that the command prints."""

    sides: tuple[Side, Side]
    summary: Summary
    speed: Speed
    pairs: Sequence[AnswerPair]
    """The worst first."""
    labelled: LabelledComparison | None

    def document(self) -> dict[str, Any]:
        """The comparison as a JSON object."""
        summary = asdict(self.summary)
        coughs = summary.pop("coughs")
        sides = {
            name: {**asdict(side), "coughs": count, "segment_ms": ms, "segments_per_s": 1000 / ms}
            for name, side, count, ms in zip("ab", self.sides, coughs, self.speed.segment_ms, strict=True)
        }
        only_a, only_b = summary.pop("only")
        return {
            **sides,
            "speed_ratio": self.speed.ratio,
            **summary,
            "only_a": only_a,
            "only_b": only_b,
            "flips": self.summary.flips,
            "flips_limit": self.summary.flips_limit,
            "labels": None if self.labelled is None else asdict(self.labelled),
            "pairs": [
                {
                    "uri": pair.source,
                    "a": _answer_document(pair.a),
                    "b": _answer_document(pair.b),
                    "shift": pair.shift,
                    "flips": pair.flips,
                }
                for pair in self.pairs
            ],
        }

    def show(self) -> None:
        """Print the comparison as text."""
        a, b = self.sides
        head = f"A {a.model} and B {b.model}: {self.summary.recordings:,} recordings"
        head += f", {a.numbers} and {b.numbers}" if a.numbers != b.numbers else f", both {a.numbers}"
        if a.profile != b.profile:
            head += f". The profiles differ ({a.profile} and {b.profile}): part of each shift is the preprocessing"
        elif a.coverage != b.coverage:
            head += f". The coverages differ ({a.coverage} and {b.coverage})"
        click.echo(printable(f"{head}."))
        self._show_sides()
        self._show_shifts()
        self._show_worst()

    def _show_sides(self) -> None:
        rows: list[tuple[str, ...]] = [("", "A", "B")]
        rows += [(name, *(str(getattr(side, name)) for side in self.sides)) for name in ("model", "file", "numbers")]
        rows.append(("size", *(f"{side.size_bytes / 1e6:.2f} MB" for side in self.sides)))
        rows += [
            (name, *(str(getattr(side, name)) for side in self.sides)) for name in ("profile", "coverage", "threshold")
        ]
        rows.append(("a segment", *(f"{ms:.2f} ms" for ms in self.speed.segment_ms)))
        rows.append(("segments/s", *(f"{1000 / ms:,.0f}" for ms in self.speed.segment_ms)))
        rows.append(("coughs", *(f"{count:,}" for count in self.summary.coughs)))
        if self.labelled is not None:
            qualities = (self.labelled.a, self.labelled.b)
            rows += [
                (name, *(_measure(getattr(quality, name.lower())) for quality in qualities))
                for name in ("AUROC", "sensitivity", "specificity")
            ]
        width = max(len(printable(row[1])) for row in rows)
        for name, left, right in rows:
            click.echo(f"  {name:<11} {printable(left):<{width}}  {printable(right)}")

    def _show_shifts(self) -> None:
        summary, ratio = self.summary, self.speed.ratio
        faster = f"B is {ratio:.2f} times as fast as A" if ratio >= 1 else f"A is {1 / ratio:.2f} times as fast as B"
        _line("speed", f"{faster}, in CPU time of one thread of this machine")
        if {side.numbers for side in self.sides} == {"float32", "float16"}:
            _line("", "float16 is for GPUs: a CPU computes it in float32")
        share = 100 * summary.flips / summary.recordings
        flips = f"{summary.flips:,} of {summary.recordings:,} decisions ({share:.2f} %): "
        flips += f"{summary.to_cough:,} to cough, {summary.to_no_cough:,} to no cough"
        if any(summary.only):
            flips += f", {summary.only[0]:,} with an answer of A only, {summary.only[1]:,} of B only"
        _line("flips", flips)
        _line("bound", f"fewer than {100 * summary.flips_limit:.2f} % of all decisions flip, with 95 % confidence")
        if self.labelled is not None:
            _line("labels", _against_labels(self.labelled))
        _line("bag shift", _shifts(summary.bags))
        _line("segments", _shifts(summary.segments))

    def _show_worst(self) -> None:
        click.echo(f"The largest differences, {min(_WORST, len(self.pairs)):,} of {len(self.pairs):,} recordings:")
        click.echo(f"  {'A':>7}  {'B':>7}  {'B - A':>7}  recording")
        for pair in self.pairs[:_WORST]:
            answers = [_probability(each, side) for each, side in zip((pair.a, pair.b), self.sides, strict=True)]
            shift = "" if pair.shift is None else f"{pair.shift:+.4f}"
            note = "  (flips)" if pair.flips else ""
            click.echo(printable(f"  {answers[0]:>7}  {answers[1]:>7}  {shift:>7}  {pair.source}{note}"))


def _answer_document(answer: Answered) -> dict[str, Any]:
    from tussis.worker.modelling.comparison import ModelAnswer

    if isinstance(answer, ModelAnswer):
        return {"bag_probability": answer.probability, "decision": answer.decision}
    return {"error": {"class": answer.error_class, "message": answer.message}}


def _probability(answer: Answered, side: Side) -> str:
    from tussis.worker.modelling.comparison import ModelAnswer

    return probability(answer.probability, side.threshold) if isinstance(answer, ModelAnswer) else "failed"


def _shifts(shifts: Shifts | None) -> str:
    if shifts is None:
        return "no recording has both answers"
    return f"probability shift mean {shifts.mean:.4f}, p95 {shifts.p95:.4f}, largest {shifts.largest:.4f}"


def _measure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _against_labels(found: LabelledComparison) -> str:
    line = f"{found.recordings:,} labelled recordings, {found.coughs:,} of them coughs"
    if any(found.right):
        line += f". Where the decisions differ, A is right in {found.right[0]:,} and B in {found.right[1]:,}"
    return line


def _line(what: str, value: str) -> None:
    click.echo(f"  {what:<11} {printable(value)}")

"""Sums over recordings and the limits that gate a deployment, with values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.audits import a_recording, an_answer, audited, bursts, plan_of, wav_of
from tussis.shared.dsp.profiles import LEGACY, TRAINING
from tussis.shared.errors import StorageCredentials, StorageUnavailable
from tussis.worker.audit.audit import Audit, run
from tussis.worker.audit.summary import Limits, shifts_of, summarise
from tussis.worker.evaluation.flips import MostFlips
from tussis.worker.modelling.comparison import Refusal


def test_shifts_are_absolute_and_flips_have_a_direction() -> None:
    found = shifts_of([(0.2, 0.7), (0.7, 0.3), (0.61, 0.62), (0.9, 0.8), (0.1, 0.1)], 0.61)

    assert found.mean == pytest.approx((0.5 + 0.4 + 0.01 + 0.1 + 0.0) / 5)
    assert found.largest == found.p99 == pytest.approx(0.5)
    assert (found.to_cough, found.to_no_cough, found.flips) == (2, 1, 3)
    assert shifts_of([], 0.5).recordings == 0


def test_a_refusal_counts_for_its_profile_only(tiny_model: Path) -> None:
    audit = Audit(plan_of(tiny_model))
    audit.recordings = [
        a_recording("a", an_answer(0.2), training=an_answer(0.3), legacy=an_answer(0.9)),
        a_recording("b", an_answer(0.8), training=an_answer(0.8)),
    ]
    audit.recordings[1].others["legacy"] = Refusal("codec_unsupported", "no")

    training, legacy = summarise(audit)

    assert (training.shifts.recordings, training.shifts.flips, dict(training.refused)) == (2, 0, {})
    assert (legacy.shifts.recordings, legacy.shifts.flips, dict(legacy.refused)) == (1, 1, {"codec_unsupported": 1})
    assert [one.source for one in audit.worst_first()] == ["a", "b"]


def test_a_flip_is_worse_than_a_larger_shift(tiny_model: Path) -> None:
    audit = Audit(plan_of(tiny_model, LEGACY))
    pairs = {"shift": (0.1, 0.6), "flip": (0.6, 0.62), "none": (0.1, 0.1), "more": (0.0, 0.6)}
    audit.recordings = [a_recording(name, an_answer(own), legacy=an_answer(p)) for name, (own, p) in pairs.items()]

    assert [one.source for one in audit.worst_first()] == ["flip", "more", "shift", "none"]


@pytest.mark.parametrize(
    ("text", "flips", "recordings", "admits"),
    [
        ("0", 0, 10, True),
        ("0", 1, 10, False),
        ("3", 3, 10, True),
        ("0.5%", 1, 200, True),
        ("0.5%", 2, 399, False),
        ("10 %", 1, 10, True),
        ("100%", 5, 5, True),
    ],
)
def test_the_most_flips_are_a_number_or_a_share(text: str, flips: int, recordings: int, admits: bool) -> None:
    assert MostFlips.parse(text).admits(flips, recordings) is admits


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "few", "%", "1e3"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write for example 5 or 0\.5%"):
        MostFlips.parse(text)


def test_a_limit_is_exceeded_only_above_it() -> None:
    shifts = shifts_of([(0.2, 0.7), (0.5, 0.5)], 0.61)

    assert Limits(MostFlips.parse("1"), 0.5).exceeded("legacy", shifts) == []
    assert Limits(MostFlips.parse("49%"), 0.499).exceeded("legacy", shifts) == [
        "legacy: 1 of 2 decisions flip, the limit is 49 %",
        "legacy: the largest shift is 0.5000, the limit is 0.499",
    ]


def test_single_factors_are_scored_only_where_the_answer_shifts(tiny_model: Path) -> None:
    """The quiet recording shifts under `legacy`, the loud one does not."""
    recordings = {"quiet": wav_of(bursts(2.0, peak=0.02)), "loud": wav_of(bursts(2.0, peak=0.999, seed=1))}

    audit = audited(plan_of(tiny_model, LEGACY, above=0.05), recordings)

    attributed = {one.source: list(one.attributions) for one in audit.recordings}
    assert attributed == {"quiet": ["legacy"], "loud": []}
    (summary,) = summarise(audit)
    assert summary.attributed == 1
    assert [factor.factor.value for factor in summary.factors] == ["decoder", "normalise", "high-pass"]
    assert summary.factors[0].mean == 0.0  # 16 bits in one channel: both decoders give the same samples
    assert summary.factors[1].main == 1


def test_one_failure_leaves_the_others_and_the_operators_error_ends_the_audit(tiny_model: Path) -> None:
    def read(source: str) -> bytes:
        if source == "away":
            raise StorageUnavailable("no answer")
        if source == "expired":
            raise StorageCredentials("expired")
        return b"not audio" if source == "broken" else wav_of(bursts(0.5))

    audit = run(plan_of(tiny_model, TRAINING), ["away", "broken", "good"], read)

    assert [one.source for one in audit.recordings] == ["good"]
    assert [(source, refusal.error_class) for source, refusal in audit.failures] == [
        ("away", "storage_unavailable"),
        ("broken", "not_audio"),
    ]
    with pytest.raises(StorageCredentials):
        run(plan_of(tiny_model, TRAINING), ["expired"], read)

"""ROC and precision-recall curves against published values and against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.evaluation.curves import confusion, curves

#: The example in the documentation of scikit-learn's roc_auc_score and average_precision_score.
KNOWN = [(0.1, False), (0.4, False), (0.35, True), (0.8, True)]

scored_lists = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), max_size=40)


def test_the_known_example() -> None:
    found = curves(KNOWN)

    assert found is not None
    assert found.auroc == pytest.approx(0.75)
    assert found.average_precision == pytest.approx(0.8333333)
    assert found.roc == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    assert found.precision_recall == [(0.5, 1), (0.5, 0.5), (1, 2 / 3), (1, 0.5)]


def test_equal_probabilities_are_one_point() -> None:
    found = curves([(0.5, True), (0.5, False), (0.5, False), (0.5, True)])

    assert found is not None
    assert found.roc == [(0, 0), (1, 1)]
    assert found.auroc == found.average_precision == 0.5


@given(scored_lists)
def test_the_area_is_the_share_of_pairs_in_order(scored: list[tuple[float, bool]]) -> None:
    coughs = [probability for probability, is_cough in scored if is_cough]
    others = [probability for probability, is_cough in scored if not is_cough]
    found = curves(scored)

    if not coughs or not others:
        assert found is None
        return
    assert found is not None
    pairs = [(cough > other) + (cough == other) / 2 for cough in coughs for other in others]
    assert found.auroc == pytest.approx(sum(pairs) / len(pairs))
    assert found.roc[-1] == (1, 1)
    assert found.precision_recall[-1] == pytest.approx((1, len(coughs) / len(scored)))
    assert list(found.roc) == sorted(found.roc)


@given(scored_lists, st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]))
def test_the_counts_at_a_threshold(scored: list[tuple[float, bool]], threshold: float) -> None:
    counts = confusion(scored, threshold)

    pairs = [(probability > threshold, is_cough) for probability, is_cough in scored]
    assert counts.true_positive == pairs.count((True, True))
    assert counts.false_positive == pairs.count((True, False))
    assert counts.false_negative == pairs.count((False, True))
    assert counts.true_negative == pairs.count((False, False))


def test_the_shares_at_a_threshold() -> None:
    counts = confusion(KNOWN, 0.37)

    assert (counts.sensitivity, counts.specificity, counts.precision, counts.f1) == (0.5, 0.5, 0.5, 0.5)
    nothing = confusion([], 0.5)
    assert {nothing.sensitivity, nothing.specificity, nothing.precision, nothing.f1} == {None}

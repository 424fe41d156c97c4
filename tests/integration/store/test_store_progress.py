"""The finished bags of a long recording: kept for the next attempt, and gone with the result."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from tests.support.store import a_claim, a_job, a_result, claimed, rows
from tussis.shared.errors import DatabaseFault
from tussis.shared.events import CoughEvent
from tussis.shared.states import AttemptOutcome
from tussis.shared.store.records import BagProgress, BagScores, ModelFacts, SegmentScores
from tussis.shared.store.repository import Store

PROGRESS = BagProgress(bags_total=3, bags_done=1, scores=b"\x00\x01\xff")


def test_the_next_attempt_finds_them(store: Store, model: ModelFacts) -> None:
    first = claimed(store.claim(a_claim(a_job(), model)))
    assert store.bag_progress(first.analysis_id) is None
    assert store.save_bag_progress(first, PROGRESS)
    assert store.save_bag_progress(first, replace(PROGRESS, bags_done=2, scores=b"more"))
    store.release(first, AttemptOutcome.HANDED_BACK)

    assert store.bag_progress(first.analysis_id) == replace(PROGRESS, bags_done=2, scores=b"more")


def test_only_the_holder_of_the_claim_saves(store: Store, model: ModelFacts) -> None:
    first = claimed(store.claim(a_claim(a_job(), model)))
    assert not store.save_bag_progress(replace(first, token=uuid.uuid4()), PROGRESS)
    store.release(first, AttemptOutcome.HANDED_BACK)
    assert not store.save_bag_progress(first, PROGRESS)
    assert store.bag_progress(first.analysis_id) is None


def test_more_finished_bags_than_bags_are_refused(store: Store, model: ModelFacts) -> None:
    first = claimed(store.claim(a_claim(a_job(), model)))
    with pytest.raises(DatabaseFault, match="bag_progress_bags_check"):
        store.save_bag_progress(first, replace(PROGRESS, bags_done=4))


def test_a_whole_recording_is_one_transaction_and_ends_the_progress(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    claim = claimed(store.claim(a_claim(a_job(), model, coverage="full", coverage_overridden=True)))
    store.save_bag_progress(claim, PROGRESS)
    starts = [0.5 * index for index in range(70)]
    result = a_result(
        probability=0.9,
        bags=BagScores((0.0, 16.0, 32.0), (17.5, 33.5, 36.5), (0.2, 0.9, 0.1), (-1.4, 1.386, -2.2), (32, 32, 6)),
        segments=SegmentScores(starts, [start + 2 for start in starts], [start / 40 for start in starts], starts),
        segments_total=70,
        events=(CoughEvent(1.0, 2.0, 0.9, 0.8, 2), CoughEvent(30.0, 30.5, 0.7, 0.7, 1)),
        warnings=("clipped", "dc_offset"),
        peak_dbfs=None,
        rms_dbfs=None,
    )

    assert store.complete(claim, result)

    assert store.bag_progress(claim.analysis_id) is None
    assert rows(store_url, "SELECT bag_index, start_s, end_s, probability, logit, segments FROM bags ORDER BY 1") == [
        (0, 0.0, 17.5, 0.2, -1.4, 32),
        (1, 16.0, 33.5, 0.9, 1.386, 32),
        (2, 32.0, 36.5, 0.1, -2.2, 6),
    ]
    found = rows(store_url, "SELECT bag_index, segment_index, start_s FROM segments ORDER BY 1, 2")
    assert found == [(index // 32, index % 32, 0.5 * index) for index in range(70)]
    assert rows(store_url, "SELECT event_index, start_s, end_s, peak, mean, bins FROM events ORDER BY 1") == [
        (0, 1.0, 2.0, 0.9, 0.8, 2),
        (1, 30.0, 30.5, 0.7, 0.7, 1),
    ]
    analysis = store.analysis(claim.analysis_id)
    assert analysis is not None
    assert (analysis.events, analysis.cough_seconds, analysis.coverage) == (2, 1.5, "full")
    assert (analysis.peak_dbfs, analysis.warnings) == (None, ["clipped", "dc_offset"])
    # Another coverage than the manifest's is not the current answer.
    assert rows(store_url, "SELECT count(*) FROM current") == [(0,)]

"""The bags of a recording are scored once each, also when the worker stops in between."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.constants import HOP_SAMPLES
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.dsp.recording import Waveform
from tussis.shared.dsp.segments import Cut
from tussis.shared.errors import DatabaseUnavailable
from tussis.shared.settings import load_settings
from tussis.shared.store.records import BagProgress, Claimed
from tussis.worker.detector.detector import Scores
from tussis.worker.outcome import Stopping
from tussis.worker.pipeline import bags
from tussis.worker.pipeline.bags import score_bags
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.scored import ScoredBags, analyzed_s, is_truncated
from tussis.worker.pipeline.watchdog import Stages

PROFILE = profile_named("training")


class Scorer:
    """Scores depend on the place of the segment alone."""

    remote = False

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.scored: list[float] = []

    def inputs(self, cut: Cut, profile: object) -> Cut:
        return cut

    def score(self, cut: Cut, *, exclusive: bool) -> Scores:
        self.scored.append(cut.start_s[0])
        starts = np.array([cut.start_s], np.float32)
        probabilities = (starts * np.float32(0.377)) % np.float32(1)
        return Scores(probabilities.max(axis=1), probabilities.max(axis=1) - 3, probabilities, probabilities * 2 - 3)


class Store:
    def __init__(self, saved: BagProgress | None = None, error: Exception | None = None) -> None:
        self.saved, self.error = saved, error
        self.saves = 0

    def bag_progress(self, analysis_id: int) -> BagProgress | None:
        return self.saved

    def save_bag_progress(self, claimed: Claimed, done: BagProgress) -> bool:
        if self.error:
            raise self.error
        self.saved, self.saves = done, self.saves + 1
        return True


class Context:
    """A context whose worker stops after some bags."""

    settings = load_settings()

    def __init__(self, store: Store, scorer: Scorer) -> None:
        self.store, self.scorer = store, scorer

    def check_stop(self) -> None:
        if self.scorer.stop_after is not None and len(self.scorer.scored) >= self.scorer.stop_after:
            raise Stopping("the worker is stopping")


def run(
    segments: int, store: Store, scorer: Scorer, *, attempt: int = 1, coverage: Coverage = Coverage.FULL
) -> ScoredBags:
    waveform = Waveform(torch.zeros(3 * HOP_SAMPLES + segments * HOP_SAMPLES), PROFILE)
    claim = Claimed(7, datetime.now(UTC), uuid4(), attempt)
    return score_bags(waveform, coverage, claim, cast(WorkerContext, Context(store, scorer)), Stages())


@pytest.mark.parametrize(("segments", "count"), [(1, 1), (32, 1), (33, 2), (100, 4)])
def test_every_bag_is_scored_once_in_order(segments: int, count: int) -> None:
    scorer = Scorer()
    scored = run(segments, Store(), scorer)
    assert scorer.scored == [16.0 * index for index in range(count)]
    assert scored.complete
    assert len(scored.probability) == segments
    assert scored.bag_probability[scored.highest] == max(scored.bag_probability)
    found = scored.bag_scores(1000.0)
    assert list(found.segments) == [32] * (count - 1) + [segments - 32 * (count - 1)]
    assert list(found.start_s) == scorer.scored


def test_the_head_is_the_first_bag() -> None:
    scorer = Scorer()
    scored = run(100, Store(), scorer, coverage=Coverage.HEAD)
    waveform = Waveform(torch.zeros(103 * HOP_SAMPLES), PROFILE)
    assert scorer.scored == [0.0]
    assert (len(scored.probability), analyzed_s(scored, waveform), is_truncated(scored, waveform)) == (32, 17.5, True)


@given(st.integers(33, 300), st.data())
@settings(derandomize=True, deadline=None, max_examples=30)
def test_a_stop_loses_no_finished_bag(segments: int, data: st.DataObject) -> None:
    whole = run(segments, Store(), Scorer())
    count = len(whole)
    stop_after = data.draw(st.integers(0, count - 1))
    store = Store()
    with pytest.raises(Stopping):
        run(segments, store, Scorer(stop_after))
    rest = Scorer()

    again = run(segments, store, rest, attempt=2)

    assert rest.scored == [16.0 * index for index in range(stop_after, count)]
    assert again == whole


@pytest.mark.parametrize(
    "saved",
    [
        BagProgress(4, 2, b""),
        BagProgress(3, 2, bytes(2 * (2 + 64) * 4)),
        BagProgress(4, 2, bytes(2 * (2 + 63) * 4)),
        None,
    ],
)
def test_what_does_not_fit_is_scored_anew(saved: BagProgress | None) -> None:
    scorer = Scorer()
    assert run(100, Store(saved), scorer, attempt=2) == run(100, Store(), Scorer())
    assert len(scorer.scored) == 4


def test_finished_bags_are_saved_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bags, "SAVE_EVERY_S", -1.0)
    store = Store()
    run(100, store, Scorer())
    assert store.saves == 3
    assert store.saved is not None
    assert (store.saved.bags_done, store.saved.bags_total) == (3, 4)
    short = Store()
    run(20, short, Scorer())
    assert short.saves == 0


def test_a_database_that_is_away_ends_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bags, "SAVE_EVERY_S", -1.0)
    store: Any = Store(error=DatabaseUnavailable("away"))
    assert run(100, store, Scorer()).complete
    with pytest.raises(Stopping):
        run(100, store, Scorer(2))

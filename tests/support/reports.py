"""Analyses and evidence for tests of reports, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import torch

from tests.support.recordings import cough_like
from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.dsp.recording import Waveform
from tussis.shared.events import find_events
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis, Segment
from tussis.worker.report.evidence import Evidence, Sound
from tussis.worker.report.sound import sound_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def an_analysis(number: int = 1, probability: float | None = 0.9, **changes: Any) -> Analysis:
    """An analysis of s3://clinic/a.wav with a result, or without one if ``probability`` is None, with ``changes``."""
    has_result = probability is not None
    fields: dict[str, Any] = {
        "id": number,
        "bucket": "clinic",
        "key": "a.wav",
        "etag": "e1",
        "version_id": None,
        "state": AnalysisState.SUCCEEDED if has_result else AnalysisState.FAILED,
        "decision": probability > 0.61 if probability is not None else None,
        "bag_probability": probability,
        "bag_logit": 2.0 if has_result else None,
        "threshold": 0.61,
        "model": "cough@1",
        "model_requested": None,
        "profile": "documented",
        "profile_overridden": False,
        "coverage": "head",
        "coverage_overridden": False,
        "forced_by": "",
        "segments": 20 if has_result else None,
        "segments_total": 20 if has_result else None,
        "duration_s": 10.0 if has_result else None,
        "analyzed_s": 10.0 if has_result else None,
        "truncated": False if has_result else None,
        "events": 1 if has_result else None,
        "cough_seconds": 1.5 if has_result else None,
        "peak_dbfs": -3.0 if has_result else None,
        "rms_dbfs": -20.0 if has_result else None,
        "clipped_share": 0.0 if has_result else None,
        "dc_offset": 0.001 if has_result else None,
        "warnings": () if has_result else None,
        "size_bytes": 320_044,
        "rate_hz": 16_000 if has_result else None,
        "channels": 1 if has_result else None,
        "codec": "pcm_s16" if has_result else None,
        "container": "wav" if has_result else None,
        "decoder": "soundfile" if has_result else None,
        "attempts": 1,
        "error_class": None if has_result else "corrupt",
        "error_message": None if has_result else "the file is damaged",
        "timings_ms": {"fetch": 12.5, "inference": 48.0},
        "worker": "cpu-1@test",
        "device": "cpu",
        "job_id": "7f0c8a52-0000-5000-8000-000000000001",
        "metadata": {},
        "created_at": NOON,
        "enqueued_at": NOON - timedelta(seconds=2),
        "started_at": NOON,
        "finished_at": NOON + timedelta(seconds=1),
    } | changes
    return Analysis(uri=f"s3://{fields['bucket']}/{fields['key']}", **fields)


def segments(probabilities: Sequence[float]) -> tuple[Segment, ...]:
    """Segments with these probabilities."""
    return tuple(
        Segment(index // 32, index % 32, index / 2, index / 2 + 2, probability, 0.0)
        for index, probability in enumerate(probabilities)
    )


def a_sound(seconds: float = 10.0, coverage: Coverage = Coverage.HEAD, *, with_wav: bool = True) -> Sound:
    """The sound of a recording that sounds like coughs."""
    samples = torch.from_numpy(cough_like(seconds, 16_000)[0])
    return sound_of(Waveform(samples / samples.abs().max(), profile_named("documented")), coverage, with_wav=with_wav)


def some_evidence(analysis: Analysis | None = None, sound: Sound | None = None, **changes: Any) -> Evidence:
    """Evidence for an analysis with 20 segments and one cough event, with ``changes``."""
    probabilities = [0.9 if 4 <= index <= 9 else 0.02 for index in range(20)]
    fields: dict[str, Any] = {
        "analysis": analysis or an_analysis(),
        "segments": segments(probabilities),
        "events": find_events([index / 2 for index in range(20)], probabilities, 10.0),
        "others": (),
        "sound": sound,
        "no_sound": "" if sound else "object_missing: no object at s3://clinic/a.wav",
        "no_player": "",
        "made_at": NOON,
        "version": "1.2.3",
    }
    return Evidence(**(fields | changes))

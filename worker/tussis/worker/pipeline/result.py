"""The result of a recording, from its scores and its audio."""

from __future__ import annotations

from collections.abc import Mapping

from tussis.shared.dsp.recording import Waveform
from tussis.shared.events import find_events
from tussis.shared.store.records import Result
from tussis.worker.audio.libraries import library_of
from tussis.worker.detector.arithmetic import Arithmetic
from tussis.worker.pipeline.prepare import AudioFacts
from tussis.worker.pipeline.scored import ScoredBags, analyzed_s, duration_s, is_truncated
from tussis.worker.pipeline.software import software_of


def result_of(
    size_bytes: int,
    audio: AudioFacts,
    waveform: Waveform,
    scored: ScoredBags,
    *,
    threshold: float,
    arithmetic: Arithmetic,
    timings_ms: Mapping[str, float],
) -> Result:
    """The result as the store takes it. ``scored`` is complete, ``size_bytes`` is that of the object."""
    bag_probability = scored.bag_probability[scored.highest]
    quality = audio.quality
    return Result(
        size_bytes=size_bytes,
        duration_s=audio.duration_s,
        rate_hz=audio.rate_hz,
        channels=audio.channels,
        codec=audio.codec,
        container=audio.container,
        decoder=audio.decoder,
        bag_probability=bag_probability,
        bag_logit=scored.bag_logit[scored.highest],
        decision=bag_probability > threshold,
        threshold=threshold,
        bags=scored.bag_scores(duration_s(waveform)),
        segments=scored.segment_scores(),
        segments_total=waveform.num_segments_total,
        analyzed_s=analyzed_s(scored, waveform),
        truncated=is_truncated(scored, waveform),
        events=find_events(scored.starts(), scored.probability, duration_s(waveform)),
        peak_dbfs=quality.peak_dbfs,
        rms_dbfs=quality.rms_dbfs,
        clipped_share=quality.clipped_share,
        dc_offset=quality.dc_offset,
        warnings=quality.warnings,
        timings_ms=timings_ms,
        software=software_of(arithmetic, library_of(audio.decoder)),
    )

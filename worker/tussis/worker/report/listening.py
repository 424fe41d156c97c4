"""Fetches the recording of an analysis, and decodes it as the worker did."""

from __future__ import annotations

from typing import Any, Final

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.settings import Settings
from tussis.shared.store.records import Analysis
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.objects import fetch
from tussis.worker.pipeline.prepare import limits_of, read_recording
from tussis.worker.report.evidence import Sound
from tussis.worker.report.sound import sound_of

MAX_PLAYER_S: Final = 600.0
"""A longer recording is not embedded, seconds: ten minutes are 26 MB of HTML."""


def sound_of_analysis(analysis: Analysis, s3: Any, settings: Settings, *, with_audio: bool) -> Sound:
    """The sound of the object with the entity tag of the analysis.

    Raises the errors of :func:`~tussis.worker.pipeline.objects.fetch` and of
    :func:`~tussis.worker.pipeline.prepare.read_recording`, and :class:`UnknownProfile`.
    """
    profile = profile_named(analysis.profile)
    version = ObjectVersion(analysis.bucket, analysis.key, analysis.etag, analysis.version_id, None)
    data = fetch(
        s3,
        version,
        max_bytes=settings.max_bytes,
        deadline_s=settings.download_timeout_s,
        verify_md5=settings.verify_md5,
    )
    audio, waveform = read_recording(data, profile, limits_of(settings))
    embedded = with_audio and audio.duration_s <= MAX_PLAYER_S
    return sound_of(waveform, Coverage(analysis.coverage), with_wav=embedded)

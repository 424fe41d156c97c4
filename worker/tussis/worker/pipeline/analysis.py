"""Analysis without queue and store: the steps of the pipeline, for a local file or an S3 object."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import Profile, profile_named
from tussis.shared.dsp.recording import Waveform
from tussis.shared.events import find_events
from tussis.shared.s3 import head_object
from tussis.shared.settings import Settings
from tussis.shared.store.records import finite
from tussis.shared.uris import parse_s3_uri
from tussis.worker.audio.limits import Limits
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.local_files import read_capped
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.objects import fetch
from tussis.worker.pipeline.prepare import AudioFacts, limits_of, read_recording
from tussis.worker.pipeline.scored import ScoredBags, analyzed_s, duration_s, is_truncated
from tussis.worker.pipeline.scoring import OwnProcess


@dataclass(frozen=True)
class Analyzer:
    """A loaded model with a profile and a coverage. ``client`` returns the S3 client, for ``s3://`` sources."""

    detector: Detector | MelDetector
    profile: Profile
    coverage: Coverage
    limits: Limits
    client: Any
    download_timeout_s: float
    verify_md5: bool

    @classmethod
    def of(
        cls,
        detector: Detector | MelDetector,
        profile: str | None,
        coverage: str | None,
        settings: Settings,
        client: Any,
    ) -> Analyzer:
        """Make an analyzer. A profile or a coverage of None is the manifest's. Raises :class:`UnknownProfile`."""
        return cls(
            detector,
            profile_named(profile or detector.manifest.profile),
            Coverage(coverage or detector.manifest.coverage),
            limits_of(settings),
            client,
            settings.download_timeout_s,
            settings.verify_md5,
        )

    def analyze(self, source: str) -> dict[str, Any]:
        """The result of one recording, as a JSON object. ``source`` is a path or an S3 URI.

        Raises the audio errors, :class:`FileUnreadable`, :class:`InferenceFailed` and the storage errors.
        """
        audio, waveform = read_recording(self.read(source), self.profile, self.limits)
        return self._answer(source, audio, waveform, score_all(OwnProcess(self.detector), waveform, self.coverage))

    def read(self, source: str) -> bytes:
        """The bytes of a recording. Raises :class:`FileUnreadable`, :class:`ObjectTooLarge` and the storage errors."""
        if source.startswith("s3://"):
            address = parse_s3_uri(source)
            s3 = self.client()
            head = head_object(s3, *address)
            version = ObjectVersion(*address, head.etag, head.version_id, head.size_bytes)
            return fetch(
                s3,
                version,
                max_bytes=self.limits.max_bytes,
                deadline_s=self.download_timeout_s,
                verify_md5=self.verify_md5,
            )
        return read_capped(Path(source), self.limits.max_bytes)

    def _answer(self, source: str, audio: AudioFacts, waveform: Waveform, scored: ScoredBags) -> dict[str, Any]:
        manifest = self.detector.manifest
        bag_probability = scored.bag_probability[scored.highest]
        segments = scored.segment_scores()
        rows = zip(segments.start_s, segments.end_s, segments.probability, strict=True)
        events = find_events(segments.start_s, segments.probability, duration_s(waveform))
        return {
            "uri": source,
            "bag_probability": bag_probability,
            "bag_logit": finite(scored.bag_logit[scored.highest]),
            "decision": bag_probability > manifest.threshold,
            "threshold": manifest.threshold,
            "segments": [
                {"index": index, "start_s": start, "end_s": end, "probability": probability}
                for index, (start, end, probability) in enumerate(rows)
            ],
            "events": [asdict(event) for event in events],
            "profile": self.profile.name,
            "coverage": self.coverage.value,
            "model": manifest.label,
            "duration_s": audio.duration_s,
            "analyzed_s": analyzed_s(scored, waveform),
            "truncated": is_truncated(scored, waveform),
            "quality": asdict(audio.quality),
        }


def score_all(scorer: OwnProcess, waveform: Waveform, coverage: Coverage) -> ScoredBags:
    """The scores of the first bag of a recording (coverage ``head``), or of all. Raises :class:`InferenceFailed`."""
    scored = ScoredBags.of(waveform, coverage)
    while not scored.complete:
        scored.add(scorer.score(scorer.inputs(waveform.bag(len(scored)), waveform.profile), exclusive=True))
    return scored

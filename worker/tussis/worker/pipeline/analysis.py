"""Analysis without queue and store: the steps of the pipeline, for a local file or an S3 object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tussis.shared.dsp.profiles import Profile, profile_named
from tussis.shared.dsp.segments import Cut
from tussis.shared.s3 import head_object
from tussis.shared.settings import Settings
from tussis.shared.uris import parse_s3_uri
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.local_files import read_capped
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.objects import fetch
from tussis.worker.pipeline.prepare import AudioFacts, cut_audio, limits_of
from tussis.worker.pipeline.scoring import OwnProcess


@dataclass(frozen=True)
class Analyzer:
    """A loaded model with a profile. ``client`` returns the S3 client, for ``s3://`` sources."""

    detector: Detector | MelDetector
    profile: Profile
    limits: Limits
    client: Any
    download_timeout_s: float
    verify_md5: bool

    @classmethod
    def of(cls, detector: Detector | MelDetector, profile: str | None, settings: Settings, client: Any) -> Analyzer:
        """Make an analyzer with ``profile``, or with the manifest's if that is None. Raises :class:`UnknownProfile`."""
        return cls(
            detector,
            profile_named(profile or detector.manifest.profile),
            limits_of(settings),
            client,
            settings.download_timeout_s,
            settings.verify_md5,
        )

    def analyze(self, source: str) -> dict[str, Any]:
        """The result of one recording, as a JSON object. ``source`` is a path or an S3 URI.

        Raises the audio errors, :class:`FileUnreadable`, :class:`InferenceFailed` and the storage errors.
        """
        audio = decode(self._read(source), self.limits, self.profile.decoder)
        cut = cut_audio(audio, self.profile)
        scorer = OwnProcess(self.detector)
        scores = scorer.score(scorer.inputs(cut, self.profile), exclusive=True)
        return self._told(source, AudioFacts.of(audio), cut, scores)

    def _read(self, source: str) -> bytes:
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

    def _told(self, source: str, audio: AudioFacts, cut: Cut, scores: Scores) -> dict[str, Any]:
        manifest = self.detector.manifest
        bag_probability = float(scores.bag_probability[0])
        rows = zip(cut.start_s, cut.end_s, scores.segment_probabilities[0].tolist(), strict=True)
        return {
            "uri": source,
            "bag_probability": bag_probability,
            "decision": bag_probability > manifest.threshold,
            "threshold": manifest.threshold,
            "segments": [
                {"index": index, "start_s": start, "end_s": end, "probability": probability}
                for index, (start, end, probability) in enumerate(rows)
            ],
            "profile": self.profile.name,
            "model": manifest.label,
            "duration_s": audio.duration_s,
            "analyzed_s": cut.analyzed_s,
            "truncated": cut.truncated,
        }

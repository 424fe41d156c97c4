"""Quantise a model, compare it with the original, and write it only if it passes the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tussis.shared.errors import FileUnreadable, InferenceFailed, ModelRefused, OutputUnwritable, TooFewRecordings
from tussis.worker.atomic import replace_file
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import (
    Manifest,
    check_sha256,
    manifest_path,
    read_manifest,
    read_model,
    sha256_of,
    write_manifest,
)
from tussis.worker.detector.probe import Probe, probe
from tussis.worker.modelling.quantization.equalise import equalise
from tussis.worker.modelling.quantization.float16 import to_float16
from tussis.worker.modelling.quantization.gate import MIN_VALIDATION, ModelOutputs, OutputShifts, compare
from tussis.worker.modelling.quantization.graph import backbone_of, in_eight_bits, simplify
from tussis.worker.modelling.quantization.int8 import Calibrated
from tussis.worker.modelling.quantization.ranges import ranges_over
from tussis.worker.modelling.quantization.recordings import Reading, ReadRecording, read
from tussis.worker.modelling.quantization.search import Int8Candidate, candidates, open_detector
from tussis.worker.modelling.timing import speed_of

#: The least number of recordings for the ranges. Too narrow a range costs far more accuracy than too wide a range.
MIN_CALIBRATION: Final = 20
#: Recordings for the search for sensitive convolutions, and segments of each. The search runs each of them once per
#: convolution.
_SAMPLES: Final = 16
_SAMPLED_SEGMENTS: Final = 4


class Target(StrEnum):
    """The number type of the convolutions."""

    INT8 = "int8"
    FLOAT16 = "float16"


class Progress(Protocol):
    """Receives the progress."""

    def report(self, line: str) -> None:
        """Report one line of progress."""

    def track(self, doing: str, paths: Sequence[Path]) -> Iterator[Path]:
        """Yield the paths one by one and report how many are done."""


@dataclass(frozen=True, slots=True)
class QuantizationRequest:
    """The parameters of a quantisation."""

    model: Path
    output: Path
    target: Target
    calibration: tuple[Path, ...]
    """Recordings for the ranges. None are needed for float16."""
    validation: tuple[Path, ...]
    reading: Reading
    threads: int
    """Threads of one run, except in the timing."""
    seed: int
    """The seed that selected the calibration recordings. It is only recorded in the provenance."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A model that was written, and its measurements."""

    manifest: Manifest
    excluded: tuple[str, ...]
    """Convolutions that stayed in float32."""
    comparison: OutputShifts
    probe: Probe
    size_bytes: tuple[int, int]
    """File sizes of the parent and of this model."""
    segment_ms: tuple[float, float]
    """CPU milliseconds per segment on one thread, of the parent and of this model."""


def quantize(request: QuantizationRequest, progress: Progress) -> Quantised:
    """Convert a float32 model to another number type. Write it and its manifest if it passes the gate.

    Raises:
        ModelRefused: the parent is missing, broken or already quantised. Or the new model failed the gate, or its
            outputs depend on other recordings in the batch or on padding. Nothing is written.
        TooFewRecordings: too few recordings could be read for the gate or for the calibration.
        OutputUnwritable: the files exist, or cannot be written.
        InferenceFailed: the parent's outputs are not usable.
    """
    _check_output(request.output)
    work = _Work.of(request, progress)
    for candidate in work.candidates():
        detector = open_detector(candidate.data, work.manifest, request.threads)
        comparison = work.compared(detector)
        if comparison.passes:
            break
        progress.report(f"{_variant_name(request.target, candidate)} fails the gate: {comparison.summary()}")
    else:
        raise ModelRefused(
            f"{request.target} of {work.parent.manifest.label} fails the gate: {comparison.summary()}:"
            " nothing was written"
        )
    found = probe(detector)
    manifest = work.new_manifest(candidate, comparison)
    sizes = len(work.data), len(candidate.data)
    timed = (open_detector(data, work.parent.manifest) for data in (work.data, candidate.data))
    times = speed_of(*timed).segment_ms
    _write(request.output, candidate.data, manifest)
    return Quantised(manifest, candidate.excluded, comparison, found, sizes, times)


@dataclass(slots=True)
class _Work:
    """The state that all candidates share."""

    request: QuantizationRequest
    progress: Progress
    data: bytes
    parent: Detector
    calibrated_on: set[str] = field(default_factory=set)
    """sha256 of the calibration recordings."""
    samples: list[NDArray[np.float32]] = field(default_factory=list)
    """``spectrograms`` of the first segments of the first calibration recordings."""
    validated: list[Path] = field(default_factory=list)
    expected: list[ModelOutputs] = field(default_factory=list)
    """The parent's outputs for ``validated``."""

    @classmethod
    def of(cls, request: QuantizationRequest, progress: Progress) -> _Work:
        manifest = read_manifest(request.model)
        data = read_model(request.model)
        check_sha256(data, manifest, str(request.model))
        _check_enough(len(request.validation), MIN_VALIDATION, "validate on")
        if request.target is Target.INT8:
            _check_enough(len(request.calibration), MIN_CALIBRATION, "calibrate on")
        return cls(request, progress, data, open_detector(data, manifest, request.threads))

    def candidates(self) -> Iterator[Int8Candidate]:
        where = str(self.request.model)
        model = simplify(self.data, where)
        backbone = backbone_of(model, where)
        if self.request.target is Target.FLOAT16:
            yield Int8Candidate(to_float16(model, backbone), ())
            return
        nodes = in_eight_bits(model, backbone)
        ranges = ranges_over(model, nodes, self._calibration(), threads=self.request.threads, where=where)
        _check_enough(len(self.calibrated_on), MIN_CALIBRATION, "calibrate on")
        yield from candidates(Calibrated(*equalise(model, backbone, ranges), backbone), self.parent, self.samples)

    def _calibration(self) -> Iterator[NDArray[np.float32]]:
        """``spectrograms`` of the calibration recordings, one recording at a time."""
        for path in self.progress.track("calibrating", self.request.calibration):
            recording = read(path, self.request.reading)
            if recording is None:
                continue
            self.calibrated_on.add(recording.sha256)
            if len(self.samples) < _SAMPLES:
                self.samples.append(recording.prepared.spectrograms[:, :_SAMPLED_SEGMENTS].copy())
            yield recording.prepared.spectrograms

    def compared(self, detector: Detector) -> OutputShifts:
        """Compare a new model with the parent. The parent's outputs are kept after the first comparison."""
        found = []
        if self.expected:
            for path in self.progress.track("validating again", self.validated):
                recording = read(path, self.request.reading)
                if recording is None:
                    raise FileUnreadable(
                        f"{path} changed during the validation: do not change the folder until it ends"
                    )
                found.append(_answers_of_new(detector, recording))
        else:
            seen = set(self.calibrated_on)
            for path in self.progress.track("validating", self.request.validation):
                recording = read(path, self.request.reading)
                if recording is None:
                    continue
                if recording.sha256 in seen:
                    self.request.reading.skipped(path, "it is a copy of a recording that was read before")
                    continue
                seen.add(recording.sha256)
                self.validated.append(path)
                self.expected.append(_answers(self.parent, recording))
                found.append(_answers_of_new(detector, recording))
            _check_enough(len(found), MIN_VALIDATION, "validate on")
        return compare(self.expected, found, self.parent.manifest.threshold)

    @property
    def manifest(self) -> Manifest:
        """The parent's manifest with the new model's version and parent. :meth:`new_manifest` sets the other fields."""
        parent = self.parent.manifest
        return replace(parent, version=f"{parent.version}-{self.request.target}", parent=parent.label)

    def new_manifest(self, candidate: Int8Candidate, comparison: OutputShifts) -> Manifest:
        """The new model's manifest."""
        parent, request = self.parent.manifest, self.request
        how = f"{request.target} of {parent.label} (sha256 {parent.sha256})"
        if request.target is Target.INT8:
            how += (
                f": convolutions in 8 bits with weights of 7, ranges over {len(self.calibrated_on)} recordings"
                f" (seed {request.seed})"
            )
            if candidate.excluded:
                how += f", in float32 {', '.join(candidate.excluded)}"
        else:
            how += ": convolutions in float16, attention and heads in float32"
        versions = f"tussis {metadata.version('tussis')} with onnxruntime {metadata.version('onnxruntime')}"
        how += f". Made by {versions} under the profile {request.reading.profile.name}; {comparison.summary()}."
        return replace(
            self.manifest,
            sha256=sha256_of(candidate.data),
            provenance=f"{how} {parent.label}: {parent.provenance or 'not stated'}",
        )


def _answers(detector: Detector, recording: ReadRecording) -> ModelOutputs:
    scores = detector.score(recording.prepared.spectrograms, recording.prepared.segment_mask)
    return ModelOutputs(float(scores.bag_probability[0]), scores.segment_probabilities[0])


def _answers_of_new(detector: Detector, recording: ReadRecording) -> ModelOutputs:
    try:
        return _answers(detector, recording)
    except InferenceFailed as error:
        # The most likely cause is an overflow in float16.
        raise ModelRefused(
            f"{detector.manifest.label} gives no valid result for {recording.path}: {error}: nothing was written"
        ) from None


def _variant_name(target: Target, candidate: Int8Candidate) -> str:
    if not candidate.excluded:
        return str(target)
    return f"{target} without {', '.join(candidate.excluded)}"


def _check_enough(found: int, needed: int, what_for: str) -> None:
    if found < needed:
        raise TooFewRecordings(f"{found} recordings to {what_for}: give at least {needed} that can be read")


def _check_output(output: Path) -> None:
    for path in (output, manifest_path(output)):
        if path.exists():
            raise OutputUnwritable(f"{path} exists: move it away, or give another file with --output")
    if not output.parent.is_dir():
        raise OutputUnwritable(f"cannot write {output}: the folder {output.parent} does not exist")


def _write(output: Path, data: bytes, manifest: Manifest) -> None:
    """Write both files or none. A worker that starts between the two writes reports that the manifest is missing."""
    try:
        replace_file(output, data, durable=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot write {output}: {error.strerror}") from None
    try:
        write_manifest(output, manifest)
    except OutputUnwritable:
        output.unlink()
        raise

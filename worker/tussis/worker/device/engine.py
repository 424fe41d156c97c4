"""Recordings to scores on one device: images, padding, a run on bound memory, answers. For one thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tussis.shared.dsp.constants import HOP_SAMPLES, IMAGE_SIZE, MAX_SEGMENTS, SAMPLE_RATE, SEGMENT_SAMPLES
from tussis.shared.dsp.images import images_of_many
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.dsp.segments import Cut
from tussis.shared.errors import InferenceFailed, ModelRefused
from tussis.worker.detector.contract import BAG_LOGIT, BAG_PROBABILITY, SEGMENT_MASK, SPECTROGRAMS, Graph
from tussis.worker.detector.detector import Scores, read_scores
from tussis.worker.detector.manifest import Manifest, check_sha256, read_manifest, read_model
from tussis.worker.detector.session import RunFailed, Session, open_session
from tussis.worker.device.order import DeviceOrder
from tussis.worker.device.places import Place, find_place
from tussis.worker.device.wire import Wave
from tussis.worker.shortage import is_shortage

#: The largest change of a logit through the neighbours in a run. float16 sums in another order stay far below it; a
#: model that depends on its neighbours (a scale taken over the batch) is far above it.
#: `tussis models check` allows float32 on a CPU 1e-4.
NEIGHBOUR_TOLERANCE: Final = 0.02
_SEED: Final = 0


class Engine:
    """One model on one device."""

    def __init__(self, manifest: Manifest, session: Session, place: Place) -> None:
        self.manifest = manifest
        self._session = session
        self._place = place
        self._reference: Scores | None = None

    @classmethod
    def load(cls, order: DeviceOrder) -> Engine:
        """Load the model onto the order's device, and no other.

        Raises:
            DeviceUnavailable: no such device, or onnxruntime would run the model elsewhere.
            ModelRefused: the file is missing or wrong, or not the one whose manifest the worker's children have read.
            NotInstalled: onnxruntime, or its build for the device, is missing.
        """
        place = find_place(order)
        path = Path(order.model)
        manifest = read_manifest(path)
        if manifest.sha256 != order.sha256:
            raise ModelRefused(f"{path} was replaced since this worker started: start the worker anew")
        data = read_model(path)
        check_sha256(data, manifest, str(path))
        session = open_session(data, str(path), intra_op_threads=order.threads, execution=place.execution)
        place.verify(session.inference.get_providers())
        return cls(manifest, session, place)

    @property
    def device_name(self) -> str:
        """The GPU's name, for people."""
        return self._place.name

    @property
    def graph(self) -> Graph:
        """The graph's properties that the contract leaves open."""
        return self._session.graph

    def warm_up(self, order: DeviceOrder) -> None:
        """Run the smallest, longest and fullest batch, and check that answers do not depend on the neighbours.

        Raises :class:`ModelRefused` when the model does not answer, or answers differently in a shared run.
        """
        longest = noise(MAX_SEGMENTS, _SEED)
        short = noise(1, _SEED + 1)
        try:
            single = self._answered([short])[0]
            if not self.graph.fixed_batch:
                fullest = max(2, min(order.carriers, order.batch_segments // MAX_SEGMENTS))
                among = self._answered([short, *[longest] * (fullest - 1)])[0]
                shift = _shift(single, among)
                if shift > NEIGHBOUR_TOLERANCE:
                    raise ModelRefused(
                        f"{self.manifest.label}: a recording's logits move by {shift:.2g} with its neighbours in a run"
                        f" (at most {NEIGHBOUR_TOLERANCE:g}): see tussis models check"
                    )
            self._answered([longest])
        except InferenceFailed as error:
            raise ModelRefused(f"{self.manifest.label} does not run on noise: {error}") from None
        self._reference = single

    def works(self) -> bool:
        """Whether the device still answers as it did at the start: a failed run may have broken it for good."""
        assert self._reference is not None
        try:
            return _shift(self._reference, self._answered([noise(1, _SEED + 1)])[0]) <= NEIGHBOUR_TOLERANCE
        except InferenceFailed:
            return False
        except Exception as error:
            if not is_shortage(error):
                raise
            # Memory for one segment is lacking: a new process starts with all of the device's free memory.
            return False

    def release_memory(self) -> None:
        """Give unused memory back to the device, after a run lacked some."""
        self._place.release_memory()

    def score(self, waves: Sequence[Wave]) -> list[Scores | InferenceFailed]:
        """One run: the answers for recordings of one profile, each B = 1, in their order.

        A recording whose own answer is unusable gets the error instead.

        Raises:
            RunFailed: the run as a whole failed, and it is not known which recording is the cause.
            Exception: of torch's or the runtime's kinds; :func:`~tussis.worker.shortage.is_shortage` recognises those
                that say that memory is short.
        """
        counts = [wave.segments for wave in waves]
        width = self.graph.fixed_segments or max(counts)
        with torch.inference_mode(), self._place.stream():
            profile = profile_named(waves[0].profile)
            stack = images_of_many(self._cuts(waves), profile)
            outputs = self._run(*padded(stack, counts, width))
        return [self._answer(outputs, row, count, width) for row, count in enumerate(counts)]

    def _answered(self, waves: Sequence[Wave]) -> list[Scores]:
        """Every answer. Raises :class:`InferenceFailed`."""
        try:
            answers = self.score(waves)
        except RunFailed as error:
            raise self.failure(str(error)) from None
        for answer in answers:
            if isinstance(answer, InferenceFailed):
                raise answer
        return [answer for answer in answers if isinstance(answer, Scores)]

    def failure(self, reason: str) -> InferenceFailed:
        """The error of a recording whose own run failed."""
        return InferenceFailed(f"the model {self.manifest.label} failed: {reason}")

    def _cuts(self, waves: Sequence[Wave]) -> list[Cut]:
        """All waveforms on the device, brought there in one copy."""
        together = self._place.upload(torch.from_numpy(np.concatenate([wave.samples for wave in waves])))
        pieces = torch.split(together, [wave.samples.shape[0] for wave in waves])
        return [_cut(padded, wave.segments) for padded, wave in zip(pieces, waves, strict=True)]

    def bare_run(self, recordings: int, segments: int) -> Callable[[], object]:
        """A run whose tensors are on the device already: the cost of the model itself. For measurements."""
        with torch.inference_mode(), self._place.stream():
            stack = self._place.upload(torch.randn(recordings * segments, 3, IMAGE_SIZE, IMAGE_SIZE))
            inputs = padded(stack, [segments] * recordings, segments)

        def run() -> object:
            with torch.inference_mode(), self._place.stream():
                return self._run(*inputs)

        return run

    def _run(self, spectrograms: torch.Tensor, mask: torch.Tensor) -> dict[str, NDArray[np.float32]]:
        """Run the graph. Inputs and outputs stay on the device, in torch's memory, until the answers are fetched."""
        binding = self._session.inference.io_binding()
        bind = self._place.binding
        # Contiguous by construction; the tensors must outlive the run.
        for name, tensor, element in ((SPECTROGRAMS, spectrograms, np.float32), (SEGMENT_MASK, mask, np.bool_)):
            binding.bind_input(name, *bind, element, tuple(tensor.shape), tensor.data_ptr())
        answers: dict[str, torch.Tensor] = {}
        for name in self.graph.outputs:
            shape = mask.shape[:1] if name in (BAG_PROBABILITY, BAG_LOGIT) else mask.shape
            answers[name] = torch.empty(shape, dtype=torch.float32, device=mask.device)
            binding.bind_output(name, *bind, np.float32, tuple(shape), answers[name].data_ptr())
        self._session.run_bound(binding)
        return {name: tensor.cpu().numpy() for name, tensor in answers.items()}

    def _answer(
        self, outputs: Mapping[str, NDArray[np.float32]], row: int, segments: int, width: int
    ) -> Scores | InferenceFailed:
        own = {name: values[row : row + 1] for name, values in outputs.items()}
        try:
            return read_scores(own, np.ones((1, segments), dtype=np.bool_), width, self.manifest.label)
        except InferenceFailed as error:
            return error


def _cut(padded: torch.Tensor, segments: int) -> Cut:
    """The cut of the segments; the device process knows nothing of the rest of the recording."""
    return Cut(
        padded=padded,
        start_s=tuple(index * HOP_SAMPLES / SAMPLE_RATE for index in range(segments)),
        num_segments_total=segments,
        truncated=False,
        duration_s=padded.shape[0] / SAMPLE_RATE,
    )


def padded(stack: torch.Tensor, counts: Sequence[int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The contract's two inputs from the images of all recordings, one behind the other.

    Args:
        stack: float32 (sum of counts, 3, 224, 224).
        counts: segments of each recording.
        width: segments that each one gets.

    Returns:
        float32 (B, width, 3, 224, 224), zeros behind a recording's own segments, and bool (B, width), true for its own;
        both on the stack's device. Where nothing is padded the images are not copied.
    """
    batch = len(counts)
    lengths = torch.tensor(counts, device=stack.device)
    mask = torch.arange(width, device=stack.device)[None] < lengths[:, None]
    shape = (batch, width, 3, IMAGE_SIZE, IMAGE_SIZE)
    if sum(counts) == batch * width:
        return stack.view(shape), mask
    spectrograms = torch.zeros(shape, dtype=stack.dtype, device=stack.device)
    done = 0
    for row, count in enumerate(counts):
        spectrograms[row, :count] = stack[done : done + count]
        done += count
    return spectrograms, mask


def noise(segments: int, seed: int, profile: str = "documented") -> Wave:
    """Seeded noise that fills so many segments."""
    count = (segments - 1) * HOP_SAMPLES + SEGMENT_SAMPLES
    samples = np.random.default_rng(seed).normal(scale=0.1, size=count).astype(np.float32)
    return Wave(samples, profile)


def _shift(one: Scores, other: Scores) -> float:
    """The largest change of a logit."""
    bag = np.abs(one.bag_logit - other.bag_logit).max()
    return float(max(bag, np.abs(one.segment_logits - other.segment_logits).max()))

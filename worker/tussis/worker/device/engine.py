"""Computes scores on one device: images, padding, a run on bound memory, scores. For one thread at a time."""

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
from tussis.worker.device.arguments import DeviceArguments
from tussis.worker.device.compute_device import ComputeDevice, find_device
from tussis.worker.device.wire import Wave
from tussis.worker.shortage import is_shortage

#: The largest change of a logit that other recordings in the run may cause. float16 sums in another order change it far
#: less. A model whose scores depend on the other recordings (a scale taken over the batch) changes it far more.
#: `tussis models check` allows 1e-4 for float32 on a CPU.
NEIGHBOUR_TOLERANCE: Final = 0.02
_SEED: Final = 0


class Engine:
    """One model on one device."""

    def __init__(self, manifest: Manifest, session: Session, device: ComputeDevice) -> None:
        self.manifest = manifest
        self._session = session
        self._device = device
        self._reference: Scores | None = None

    @classmethod
    def load(cls, arguments: DeviceArguments) -> Engine:
        """Load the model onto the device of ``arguments``, never onto another one.

        Raises:
            DeviceUnavailable: there is no such device, or onnxruntime would run the model on another one.
            ModelRefused: the file is missing or wrong, or differs from the manifest that the worker's children read.
            NotInstalled: onnxruntime, or its build for the device, is missing.
        """
        device = find_device(arguments)
        path = Path(arguments.model)
        manifest = read_manifest(path)
        if manifest.sha256 != arguments.sha256:
            raise ModelRefused(f"{path} was replaced after this worker started: restart the worker")
        data = read_model(path)
        check_sha256(data, manifest, str(path))
        session = open_session(data, str(path), intra_op_threads=arguments.threads, execution=device.execution)
        device.verify(session.inference.get_providers())
        return cls(manifest, session, device)

    @property
    def device_name(self) -> str:
        """The GPU's name, for the log."""
        return self._device.name

    @property
    def graph(self) -> Graph:
        """The properties of the graph that the contract does not fix."""
        return self._session.graph

    def warm_up(self, arguments: DeviceArguments) -> None:
        """Run the smallest, longest and fullest batch, and check that scores do not depend on the other recordings.

        Raises :class:`ModelRefused` when a run fails, or when the scores differ in a shared run.
        """
        longest = noise(MAX_SEGMENTS, _SEED)
        short = noise(1, _SEED + 1)
        try:
            single = self._answered([short])[0]
            if not self.graph.fixed_batch:
                fullest = max(2, min(arguments.children, arguments.batch_segments // MAX_SEGMENTS))
                among = self._answered([short, *[longest] * (fullest - 1)])[0]
                shift = _shift(single, among)
                if shift > NEIGHBOUR_TOLERANCE:
                    raise ModelRefused(
                        f"{self.manifest.label}: the logits of a recording change by {shift:.2g} with the others in its"
                        f" run (limit {NEIGHBOUR_TOLERANCE:g}): run tussis models check"
                    )
            self._answered([longest])
        except InferenceFailed as error:
            raise ModelRefused(f"{self.manifest.label} failed on random test input: {error}") from None
        self._reference = single

    def works(self) -> bool:
        """Whether the device still computes the scores of the start. A failed run may have broken it permanently."""
        assert self._reference is not None
        try:
            return _shift(self._reference, self._answered([noise(1, _SEED + 1)])[0]) <= NEIGHBOUR_TOLERANCE
        except InferenceFailed:
            return False
        except Exception as error:
            if not is_shortage(error):
                raise
            # There is no memory for even one segment. A new process starts with all of the device's free memory.
            return False

    def release_memory(self) -> None:
        """Return unused memory to the device after a run had too little."""
        self._device.release_memory()

    def score(self, waves: Sequence[Wave]) -> list[Scores | InferenceFailed]:
        """Do one run: the scores of recordings of one profile, each B = 1, in the order of ``waves``.

        The entry of a recording with unusable scores is the error.

        Raises:
            RunFailed: the whole run failed, and the recording that caused it is unknown.
            Exception: an exception of torch or the runtime; :func:`~tussis.worker.shortage.is_shortage` recognises
                those that report a lack of memory.
        """
        counts = [wave.segments for wave in waves]
        width = self.graph.fixed_segments or max(counts)
        with torch.inference_mode(), self._device.stream():
            profile = profile_named(waves[0].profile)
            stack = images_of_many(self._cuts(waves), profile)
            outputs = self._run(*padded(stack, counts, width))
        return [self._answer(outputs, row, count, width) for row, count in enumerate(counts)]

    def _answered(self, waves: Sequence[Wave]) -> list[Scores]:
        """The scores of all recordings. Raises :class:`InferenceFailed` when any has none."""
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
        """Copy all waveforms to the device in one transfer."""
        together = self._device.upload(torch.from_numpy(np.concatenate([wave.samples for wave in waves])))
        pieces = torch.split(together, [wave.samples.shape[0] for wave in waves])
        return [_cut(padded, wave.segments) for padded, wave in zip(pieces, waves, strict=True)]

    def bare_run(self, recordings: int, segments: int) -> Callable[[], object]:
        """A run whose tensors are already on the device, to measure the time of the model itself."""
        with torch.inference_mode(), self._device.stream():
            stack = self._device.upload(torch.randn(recordings * segments, 3, IMAGE_SIZE, IMAGE_SIZE))
            inputs = padded(stack, [segments] * recordings, segments)

        def run() -> object:
            with torch.inference_mode(), self._device.stream():
                return self._run(*inputs)

        return run

    def _run(self, spectrograms: torch.Tensor, mask: torch.Tensor) -> dict[str, NDArray[np.float32]]:
        """Run the graph. Inputs and outputs stay on the device, in torch's memory, until the outputs are copied."""
        binding = self._session.inference.io_binding()
        bind = self._device.binding
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
    """The cut of the segments. The device process does not have the rest of the recording."""
    return Cut(
        padded=padded,
        start_s=tuple(index * HOP_SAMPLES / SAMPLE_RATE for index in range(segments)),
        num_segments_total=segments,
        truncated=False,
        duration_s=padded.shape[0] / SAMPLE_RATE,
    )


def padded(stack: torch.Tensor, counts: Sequence[int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make the contract's two inputs from the images of all recordings.

    Args:
        stack: float32 (sum of counts, 3, 224, 224), one recording after the other.
        counts: segments of each recording.
        width: padded number of segments of each recording.

    Returns:
        float32 (B, width, 3, 224, 224), zeros after a recording's own segments, and bool (B, width), true for its own
        segments; both on the stack's device. Without padding the images are not copied.
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
    """Seeded noise of ``segments`` segments."""
    count = (segments - 1) * HOP_SAMPLES + SEGMENT_SAMPLES
    samples = np.random.default_rng(seed).normal(scale=0.1, size=count).astype(np.float32)
    return Wave(samples, profile)


def _shift(one: Scores, other: Scores) -> float:
    """The largest difference of any logit between the two scores."""
    bag = np.abs(one.bag_logit - other.bag_logit).max()
    return float(max(bag, np.abs(one.segment_logits - other.segment_logits).max()))

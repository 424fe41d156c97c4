"""Random weights that give different outputs for different recordings.

A network after initialisation gives nearly the same features for every image, and so the same decision for every
recording. A test with such a network proves nothing. This module fits the batch statistics and the heads to seeded
synthetic sounds (noise beds, bursts, tones). About half of the bags and half of the segments are then above the
threshold, and the logits are spread widely around it. The network learns nothing: which half is above is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tussis.shared.dsp.constants import SAMPLE_RATE
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import DOCUMENTED
from tussis.shared.dsp.recording import cut_recording
from tussis.worker.modelling.architecture import CoughNet

#: The threshold of the user's own model. The random model has the same, so that the tools show realistic values.
THRESHOLD: Final = 0.61

#: Sounds to calibrate on: about 70 images. They need 0.8 GB of memory for a short time.
_SOUNDS: Final = 20
#: Threads of torch, on every machine. Two were not faster on a machine with other load.
_THREADS: Final = 1
#: Standard deviation of bag and segment logits over the calibration sounds. Probabilities are about 0.07 to 0.97.
_LOGIT_STD: Final = 1.5
#: Standard deviation of the attention's scores. Some segments get several times the weight of others; none gets all.
_ATTENTION_STD: Final = 1.0
#: The number of directions of largest variance in feature space that the heads use. More directions distinguish
#: recordings better, but their means over 20 sounds do not transfer to other sounds. With 4, 32 to 66 % of 50 real
#: recordings were above the threshold (six seeds); with 12, 20 to 90 %.
_DIRECTIONS: Final = 4


def random_network(seed: int) -> CoughNet:
    """A network in eval mode with calibrated random weights. The same seed and machine give the same weights."""
    with _deterministic(seed), torch.no_grad():
        network = CoughNet()
        _calibrate(network, synthetic_images(seed, _SOUNDS))
    return network.eval()


def synthetic_images(seed: int, sounds: int) -> list[Tensor]:
    """The network's input for seeded sounds of 0.5 to 2.5 s, with the profile ``documented``.

    One tensor per sound: float32 (S, 3, 224, 224), 1 <= S <= 5. The last segments are padded like those of a recording.
    """
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(sounds):
        samples = int(generator.integers(SAMPLE_RATE // 2, 5 * SAMPLE_RATE // 2))
        sound = torch.from_numpy(_sound(generator, samples).astype(np.float32))
        cut = cut_recording(sound[None], SAMPLE_RATE, DOCUMENTED)
        found.append(images(cut, DOCUMENTED))
    return found


def _sound(generator: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A noise bed with up to four bursts and up to two tones, at 16 kHz."""
    time_s = np.arange(samples) / SAMPLE_RATE
    sound = 10 ** (generator.uniform(-70, -15) / 20) * _coloured(generator, samples)
    for _ in range(generator.integers(0, 5)):
        since_s = time_s - generator.uniform(0, time_s[-1])
        decay_s = generator.uniform(0.02, 0.3)
        envelope = np.where(since_s >= 0, np.exp(-np.maximum(since_s, 0) / decay_s), 0)
        sound += generator.uniform(0.1, 1) * envelope * _coloured(generator, samples)
    for _ in range(generator.integers(0, 3)):
        pitch_hz = np.exp(generator.uniform(math.log(80), math.log(1500)))
        phase = 2 * np.pi * pitch_hz * time_s + generator.uniform(0, 3) * np.sin(2 * np.pi * 5 * time_s)
        overtones = range(1, generator.integers(2, 8))
        sound += generator.uniform(0.01, 0.5) * sum(np.sin(n * phase) / n for n in overtones)
    return np.asarray(sound / np.abs(sound).max())


def _coloured(generator: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Noise with standard deviation 1 and a power that falls (or rises) with frequency."""
    spectrum = np.fft.rfft(generator.normal(size=samples))
    spectrum *= np.arange(1, len(spectrum) + 1) ** generator.uniform(-1.0, 0.25)
    noise = np.fft.irfft(spectrum, samples)
    return np.asarray(noise / noise.std())


def _calibrate(network: CoughNet, calibration: list[Tensor]) -> None:
    sizes = [len(sound) for sound in calibration]
    features = _normalising(network.backbone, torch.cat(calibration))
    whitened = _whitening(features)
    hidden, score = _linears(network.attn)
    _look_along(hidden, whitened, features)
    _spread(score, torch.tanh(hidden(features)), 0.0, _ATTENTION_STD)

    pooled = torch.cat([_pooled_beginnings(network, sound) for sound in torch.split(features, sizes)])
    hidden, last = _linears(network.bag_head)
    _look_along(hidden, whitened, features)
    middle = math.log(THRESHOLD / (1 - THRESHOLD))
    _spread(last, _normalising(network.bag_head[:3], pooled), middle, _LOGIT_STD)
    _look_along(network.seg_head, whitened, features)
    _spread(network.seg_head, features, middle, _LOGIT_STD)


def _pooled_beginnings(network: CoughNet, sound: Tensor) -> Tensor:
    """Pool a sound's features (S, 512) up to each of its segments, (S, 512): more bags from the same images."""
    mask = torch.ones(len(sound), len(sound), dtype=torch.bool).tril()
    return network.pooled(sound.expand(len(sound), -1, -1), mask)


def _normalising(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run a module and set the running statistics of its BatchNorms to those of this run. Return the outputs."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    module.train()
    outputs: Tensor = module(inputs)
    module.eval()
    for norm in norms:
        norm.momentum = 0.1  # PyTorch's default, as after construction
    return outputs


def _whitening(features: Tensor) -> Tensor:
    """The directions (512, k) of largest variance, each divided by its standard deviation."""
    centred = (features - features.mean(0)).double()
    _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
    deviation = scale[:_DIRECTIONS] / math.sqrt(len(features))
    whitening: Tensor = (directions[:_DIRECTIONS].T / deviation).float()
    return whitening


def _look_along(linear: nn.Linear, whitened: Tensor, inputs: Tensor) -> None:
    """Set a layer's weights to random mixtures of the whitened directions, with outputs of mean 0 and variance 1."""
    mixture = nn.functional.normalize(torch.randn(linear.out_features, whitened.shape[1]), dim=1)
    linear.weight.copy_(mixture @ whitened.T)
    linear.bias.copy_(-linear.weight @ inputs.mean(0))


def _spread(linear: nn.Linear, inputs: Tensor, middle: float, deviation: float) -> None:
    """Scale and shift a layer with one output to this median and standard deviation over the inputs."""
    linear.weight.mul_(deviation / linear(inputs).std())
    linear.bias.zero_()
    linear.bias.add_(middle - linear(inputs).median())


def _linears(layers: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    first, second = (layer for layer in layers if isinstance(layer, nn.Linear))
    return first, second


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Seed torch's generator and fix its number of threads, and restore both on exit.

    Another number of threads splits the sums differently, which changes the rounding.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(_THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

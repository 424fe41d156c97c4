"""Random weights that answer differently for different recordings.

A network as it is initialised gives every image nearly the same features, and so every recording the same decision:
a test against it proves nothing. Here the batch statistics and the heads are fitted to seeded synthetic sounds (noise
beds, bursts, tones), so that about half of the bags and half of the segments lie above the threshold, with logits
spread widely around it. Nothing is learnt: which half is chance.
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

#: The threshold of the user's own model; a random one takes it over so that the tools around it look as in earnest.
THRESHOLD: Final = 0.61

#: Sounds to calibrate on: about 70 images, 0.8 GB for a moment.
_SOUNDS: Final = 20
#: Of torch, whatever the machine has: one, as two were no faster beside other work.
_THREADS: Final = 1
#: Standard deviation of bag and segment logits over the calibration sounds: probabilities from about 0.07 to 0.97.
_LOGIT_STD: Final = 1.5
#: Standard deviation of the attention's scores: some segments weigh several times more than others, none alone.
_ATTENTION_STD: Final = 1.0
#: Directions of largest variance in feature space that the heads look along. More would tell recordings apart more
#: finely, but their means over 20 sounds say little about other sounds: with 4, 32 to 66 % of 50 real recordings lay
#: above the threshold (six seeds), with 12, 20 to 90 %.
_DIRECTIONS: Final = 4


def random_network(seed: int) -> CoughNet:
    """A network in eval mode whose random weights are calibrated; the same for the same seed on the same machine."""
    with _deterministic(seed), torch.no_grad():
        network = CoughNet()
        _calibrate(network, synthetic_images(seed, _SOUNDS))
    return network.eval()


def synthetic_images(seed: int, sounds: int) -> list[Tensor]:
    """Seeded sounds of 0.5 to 2.5 s as the network sees them under the profile ``documented``.

    One tensor a sound: float32 (S, 3, 224, 224), 1 <= S <= 5, the last segments padded as those of a recording.
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
    """A noise bed with up to four bursts and up to two tones on it, at 16 kHz."""
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
    """Noise whose power falls (or rises) with frequency, of standard deviation 1."""
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
    """A sound's features (S, 512), pooled up to each of its segments (S, 512): more bags for the same images."""
    mask = torch.ones(len(sound), len(sound), dtype=torch.bool).tril()
    return network.pooled(sound.expand(len(sound), -1, -1), mask)


def _normalising(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run a module and make the running statistics of its BatchNorms those of this very run; its outputs."""
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
    """The directions (512, k) of largest variance, each over its standard deviation."""
    centred = (features - features.mean(0)).double()
    _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
    deviation = scale[:_DIRECTIONS] / math.sqrt(len(features))
    whitening: Tensor = (directions[:_DIRECTIONS].T / deviation).float()
    return whitening


def _look_along(linear: nn.Linear, whitened: Tensor, inputs: Tensor) -> None:
    """Turn a layer's random weights into random mixtures of the whitened directions, of mean 0 and variance 1."""
    mixture = nn.functional.normalize(torch.randn(linear.out_features, whitened.shape[1]), dim=1)
    linear.weight.copy_(mixture @ whitened.T)
    linear.bias.copy_(-linear.weight @ inputs.mean(0))


def _spread(linear: nn.Linear, inputs: Tensor, middle: float, deviation: float) -> None:
    """Scale and shift a layer of one output so that it has this median and standard deviation over the inputs."""
    linear.weight.mul_(deviation / linear(inputs).std())
    linear.bias.zero_()
    linear.bias.add_(middle - linear(inputs).median())


def _linears(layers: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    first, second = (layer for layer in layers if isinstance(layer, nn.Linear))
    return first, second


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Seed torch's generator and fix the threads (another split of the sums rounds differently); both put back."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(_THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

"""The reference detector: a small residual network on every segment, attention over the segments of a recording."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tussis.shared.dsp.constants import CONTENT_ROWS, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, MARGIN_ROWS

#: Channels of the stem and of the three blocks.
WIDTHS = (24, 48, 72, 96)
EMBEDDING = 64
ATTENTION = 32
_DROPOUT = 0.2


class Logits(NamedTuple):
    """``bag`` (B,) and ``segments`` (B, S), float32."""

    bag: Tensor
    segments: Tensor


class Block(nn.Module):
    """Two 3 x 3 convolutions with a 1 x 1 shortcut."""

    def __init__(self, before: int, after: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, rows, columns) to (N, after, rows / stride, columns / stride)."""
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut_norm(self.shortcut(x)))


class Reference(nn.Module):
    """Attention multiple-instance learning over one-channel images in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        stem, one, two, three = WIDTHS
        # No normalisation: on the largest maps it would take a fifth of the training time. The input is in [-1, 1].
        self.stem = nn.Sequential(nn.Conv2d(1, stem, 7, 4, 2), nn.ReLU())
        self.blocks = nn.Sequential(Block(stem, one, (2, 2)), Block(one, two, (2, 2)), Block(two, three, (2, 1)))
        # The 178 rows are reduced to 6. Each has its own weight, which distinguishes low and high frequencies.
        self.rows = nn.Conv2d(three, three, (6, 1), groups=three, bias=False)
        self.embed = nn.Sequential(nn.Linear(2 * three, EMBEDDING), nn.ReLU(), nn.Dropout(_DROPOUT))
        self.attention = nn.Sequential(nn.Linear(EMBEDDING, ATTENTION), nn.Tanh(), nn.Linear(ATTENTION, 1))
        self.segment_head = nn.Linear(EMBEDDING, 1)
        self.bag_head = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(EMBEDDING, 1)
        )
        # The highest segment logit is added to the attention's result. On long recordings it is the better measure.
        self.peak_gain = nn.Parameter(torch.tensor(0.5))

    def features(self, images: Tensor) -> Tensor:
        """Features (N, 64) of images (N, 178, 224) in [-1, 1]."""
        maps = self.rows(self.blocks(self.stem(images[:, None])))[:, :, 0]
        return cast(Tensor, self.embed(torch.cat((maps.mean(dim=2), maps.amax(dim=2)), dim=1)))

    def heads(self, features: Tensor, mask: Tensor) -> Logits:
        """Logits from features (B, S, 64) and a mask (B, S), bool. They are finite also for a row without segments."""
        lowest = torch.finfo(torch.float32).min
        scores = self.attention(features).squeeze(-1).float().masked_fill(~mask, lowest)
        weights = torch.softmax(scores, dim=1) * mask
        segments = self.segment_head(features).squeeze(-1).float()
        peak = segments.masked_fill(~mask, -30.0).amax(dim=1)
        pooled = (weights.unsqueeze(-1) * features).sum(dim=1)
        return Logits(self.bag_head(pooled).squeeze(-1).float() + self.peak_gain * peak, segments)


class Exported(nn.Module):
    """:class:`Reference` with the contract's inputs and outputs and calibrated probabilities."""

    def __init__(
        self, reference: Reference, bag_temperature: float, segment_temperature: float, segment_offset: float
    ) -> None:
        super().__init__()
        self.reference = reference
        self.bag_temperature = bag_temperature
        self.segment_temperature = segment_temperature
        self.segment_offset = segment_offset

    def forward(self, spectrograms: Tensor, segment_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, S, 3, 224, 224) and bool (B, S) to bag and segment probabilities, segment and bag logits."""
        batch, segments = spectrograms.shape[0], spectrograms.shape[1]
        # The three channels are the same image. The first is converted back to [-1, 1] without the letterbox's margins.
        inside = slice(MARGIN_ROWS, MARGIN_ROWS + CONTENT_ROWS)
        image = spectrograms[:, :, 0, inside, :].reshape(-1, CONTENT_ROWS, IMAGE_SIZE)
        plain = (image * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 2.0 - 1.0
        features = self.reference.features(plain).reshape(batch, segments, EMBEDDING)
        logits = self.reference.heads(features, segment_mask)
        bag = logits.bag / self.bag_temperature
        each = logits.segments / self.segment_temperature + self.segment_offset
        return torch.sigmoid(bag), torch.sigmoid(each), each, bag


def stretched(plain: Tensor) -> Tensor:
    """Stretch images to the letterbox's content as in the contract: float32 (N, 160, 201) to (N, 178, 224)."""
    return nn.functional.interpolate(plain[:, None], (CONTENT_ROWS, IMAGE_SIZE), mode="bilinear", align_corners=False)[
        :, 0
    ]

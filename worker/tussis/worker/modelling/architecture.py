"""The user's network: a ResNet-18 on every segment, and attention over the segments of a recording.

The audio contract (docs/preprocessing.md, "The model contract") defines the sizes and the keys of the checkpoint:
``backbone.`` with torchvision's names and without ``fc``, ``attn.0``, ``attn.2``, ``bag_head.0``, ``bag_head.2``,
``bag_head.4``, ``seg_head``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

#: Width of ResNet-18's features, after its global average pooling.
FEATURES: Final = 512
#: Width of the attention's hidden layer.
ATTENTION: Final = 128
# The share of the bag head's hidden units that training drops. The contract has no number for it. Inference does not
# need one: dropout has no weights and no effect in eval mode.
_DROPOUT: Final = 0.5


class NetworkOutputs(NamedTuple):
    """The network's outputs for B recordings of up to S segments, float32, named and ordered as in the ONNX file."""

    bag_probability: Tensor
    """(B,)"""
    segment_probabilities: Tensor
    """(B, S)"""
    segment_logits: Tensor
    """(B, S)"""
    bag_logit: Tensor
    """(B,)"""


class CoughNet(nn.Module):
    """Attention multiple-instance learning over ResNet-18 features."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet18(weights=None)
        self.backbone.fc = nn.Identity()
        self.attn = nn.Sequential(nn.Linear(FEATURES, ATTENTION), nn.Tanh(), nn.Linear(ATTENTION, 1))
        self.bag_head = nn.Sequential(
            nn.Linear(FEATURES, FEATURES),
            nn.ReLU(),
            nn.BatchNorm1d(FEATURES),
            nn.Dropout(_DROPOUT),
            nn.Linear(FEATURES, 1),
        )
        self.seg_head = nn.Linear(FEATURES, 1)

    def forward(self, spectrograms: Tensor, segment_mask: Tensor) -> NetworkOutputs:
        """The outputs for spectrograms (B, S, 3, 224, 224) float32 and ``segment_mask`` (B, S) bool.

        For a row without a kept segment the outputs are finite but have no meaning.
        """
        batch, segments = spectrograms.shape[0], spectrograms.shape[1]
        features = self.features(spectrograms.flatten(0, 1)).reshape(batch, segments, FEATURES)
        bag_logit = self.bag_head(self.pooled(features, segment_mask)).squeeze(-1)
        segment_logits = self.seg_head(features).squeeze(-1)
        return NetworkOutputs(torch.sigmoid(bag_logit), torch.sigmoid(segment_logits), segment_logits, bag_logit)

    def features(self, images: Tensor) -> Tensor:
        """Features (N, 512) of images (N, 3, 224, 224), float32."""
        features: Tensor = self.backbone(images)
        return features

    def pooled(self, features: Tensor, segment_mask: Tensor) -> Tensor:
        """The attention's weighted sum (B, 512) of features (B, S, 512) over the segments that the mask (B, S) keeps.

        Masked scores are the most negative finite number. If a row keeps a segment, the weight of the others is exactly
        0. If it keeps none, the result is 0. With minus infinity it would be NaN.
        """
        scores = self.attn(features).squeeze(-1)
        scores = scores.masked_fill(~segment_mask, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=1) * segment_mask
        return (weights.unsqueeze(-1) * features).sum(dim=1)

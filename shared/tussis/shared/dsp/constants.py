"""The constants of the audio contract that are the same in every profile, with their units.

They come from the training pipeline. A model trained with other numbers needs other code, not another setting.
``docs/preprocessing.md`` has the same numbers in a table, and a test compares the two.
"""

from __future__ import annotations

from typing import Final

SAMPLE_RATE: Final = 16_000
"""Sample rate of the waveform that is cut into segments, Hz."""

# --- segments ---------------------------------------------------------------------------------------------

SEGMENT_SAMPLES: Final = 32_000
"""Length of a segment, samples at ``SAMPLE_RATE``."""
HOP_SAMPLES: Final = 8_000
"""Distance between the starts of neighbouring segments, samples at ``SAMPLE_RATE``."""
MAX_SEGMENTS: Final = 32
"""Number of segments kept from the start of a recording."""
SEGMENT_SECONDS: Final = SEGMENT_SAMPLES / SAMPLE_RATE
HOP_SECONDS: Final = HOP_SAMPLES / SAMPLE_RATE

# --- mel spectrogram --------------------------------------------------------------------------------------

FFT_SAMPLES: Final = 1_024
"""Length of the transform and of its periodic Hann window, samples."""
FRAME_HOP_SAMPLES: Final = 160
"""Distance between frames, samples: 10 ms."""
FRAMES: Final = SEGMENT_SAMPLES // FRAME_HOP_SAMPLES + 1
"""Frames in a segment. They are centred, so there is one more than there are hops."""
MEL_BANDS: Final = 160
"""HTK mel bands, without area normalisation."""
MEL_LOW_HZ: Final = 50.0
MEL_HIGH_HZ: Final = 4_000.0

# --- decibels to [-1, 1] ----------------------------------------------------------------------------------

POWER_FLOOR: Final = 1e-10
"""Lower limit of the power before the logarithm."""
DYNAMIC_RANGE_DB: Final = 80.0
"""Distance from a segment's maximum to its floor, and the span that is scaled to [-1, 1]: -80 dB is -1, 0 dB is 1."""

# --- the image --------------------------------------------------------------------------------------------

IMAGE_SIZE: Final = 224
"""Rows and columns of the image, pixels."""
CONTENT_ROWS: Final = 178
"""Rows of the mel bands: 160 * 224 / 201 rounded, so that time and frequency are stretched by the same factor."""
MARGIN_ROWS: Final = (IMAGE_SIZE - CONTENT_ROWS) // 2
"""Rows of ``MARGIN_VALUE`` above the content, and the same number below."""
MARGIN_VALUE: Final = -1.0

# ImageNet's channel statistics. The ResNet-18 weights of torchvision were trained with them.
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

"""What the measurement of a GPU worker makes of its passes. The passes themselves need a GPU to say anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tussis.worker.bench import device
from tussis.worker.bench.crew import Spent
from tussis.worker.bench.device import DeviceMeasurement
from tussis.worker.bench.floor import Rounds
from tussis.worker.device.arguments import OnDevice, Provider

MEASUREMENT = DeviceMeasurement(Path("cough.onnx"), OnDevice(Provider.CUDA), children=16, rounds=2)


def passes(*walls: float) -> list[Spent]:
    return [Spent(wall, 0.0) for wall in walls]


def test_the_worker_is_held_against_the_faster_of_the_model_s_own_rates() -> None:
    """Given 10 recordings a second alone one by one, and 24 in runs of 12, then 24 are the floor."""
    report = device._measurements(
        MEASUREMENT,
        "tussis bench device",
        100,
        {1: passes(10, 10), 12: passes(4, 4)},
        Rounds(tuple(passes(5, 5))),
        "a GPU",
    )
    (verdict,) = report.verdicts
    assert verdict.measured == pytest.approx(20 / 24)
    assert verdict.reached
    assert [row[2] for row in report.rows] == [10.0, 24.0, 20.0]
    assert report.title == "GPU worker on a GPU, cuda"


def test_an_unsteady_floor_says_nothing() -> None:
    report = device._measurements(
        MEASUREMENT, "tussis bench device", 100, {1: passes(10, 14)}, Rounds(tuple(passes(5, 5))), "a GPU"
    )
    assert report.verdicts[0].reached is None

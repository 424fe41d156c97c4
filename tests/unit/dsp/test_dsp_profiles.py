"""Profiles are found by name, never change, and cost no heavy import."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from tussis.shared.dsp.profiles import PROFILES, Decoder, Normalise, Profile, Tail, profile_named
from tussis.shared.errors import UnknownProfile


def test_the_three_profiles_are_the_contracts() -> None:
    assert list(PROFILES.values()) == [
        Profile("documented", 1, Decoder.NATIVE, Normalise.PEAK, 50.0, Tail.PAD, image_float16=False),
        Profile("training", 1, Decoder.NATIVE, Normalise.PEAK, None, Tail.DROP, image_float16=True),
        Profile("legacy", 1, Decoder.PYDUB, Normalise.BIT_DEPTH, None, Tail.PAD, image_float16=False),
    ]


@pytest.mark.parametrize("name", ["documented", "training", "legacy"])
def test_a_profile_is_found_by_its_name(name: str) -> None:
    assert profile_named(name) is PROFILES[name]
    assert profile_named(name).name == name


@pytest.mark.parametrize("name", ["", "Documented", "documented ", "v2"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownProfile, match="documented, training, legacy") as caught:
        profile_named(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_cannot_be_changed() -> None:
    for field in dataclasses.fields(Profile):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(PROFILES["documented"], field.name, None)
    with pytest.raises(TypeError):
        PROFILES["documented"] = PROFILES["training"]  # type: ignore[index]  # that it is refused is the point
    assert len({*PROFILES.values()}) == 3


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout


def test_names_are_checked_without_torch() -> None:
    heavy = run_python(
        "import sys, tussis.shared.dsp, tussis.shared.dsp.profiles, tussis.shared.dsp.constants\n"
        "print([name for name in ('torch', 'torchaudio', 'numpy') if name in sys.modules])"
    )
    assert heavy.strip() == "[]"


def test_transforms_are_built_on_first_use_not_at_import() -> None:
    built = run_python(
        "import tussis.shared.dsp.recording\n"
        "from tussis.shared.dsp.images import _traced\n"
        "from tussis.shared.dsp.frames import filter_bank\n"
        "from tussis.shared.dsp.highpass import _coefficients\n"
        "from tussis.shared.dsp.resampling import _resampler, _sparse_kernel\n"
        "cached = (filter_bank, _traced, _coefficients, _resampler, _sparse_kernel)\n"
        "print([function.cache_info().currsize for function in cached])"
    )
    assert built.strip() == "[0, 0, 0, 0, 0]"


def test_the_signal_path_reaches_no_settings_store_or_network() -> None:
    reached = run_python(
        "import sys, tussis.shared.dsp.images, tussis.shared.dsp.recording\n"
        "import tussis.shared.dsp.legacy\n"
        "print(sorted(name for name in sys.modules if name.startswith(('tussis.', 'boto3', 'redis', 'sqlalchemy'))))"
    )
    assert "boto3" not in reached
    assert "redis" not in reached
    assert "sqlalchemy" not in reached
    for name in eval(reached):  # a list of strings that this test printed
        assert name in ("tussis.shared", "tussis.shared.errors", "tussis.shared.dsp") or name.startswith(
            "tussis.shared.dsp."
        )

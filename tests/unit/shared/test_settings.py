"""Settings: read from the environment, overridden by flags, and refused in one line when wrong."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from tussis.shared.errors import SettingsInvalid
from tussis.shared.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TUSSIS_"):
            monkeypatch.delenv(name)


def test_an_environment_without_settings_gives_the_defaults() -> None:
    settings = load_settings()

    assert settings.broker_url is None
    assert settings.max_bytes == 419_430_400
    assert settings.concurrency >= 1


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_BROKER_URL", "redis://example:6379/0")
    monkeypatch.setenv("TUSSIS_MAX_CHANNELS", "2")

    settings = load_settings()

    assert settings.need_broker() == "redis://example:6379/0"
    assert settings.max_channels == 2


def test_a_flag_wins_and_a_flag_that_is_not_given_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_BROKER_URL", "redis://environment/0")

    assert load_settings(broker_url="redis://flag/0").broker_url == "redis://flag/0"
    assert load_settings(broker_url=None).broker_url == "redis://environment/0"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_BROKER_URL", "")

    with pytest.raises(SettingsInvalid, match="TUSSIS_BROKER_URL is not set"):
        load_settings().need_broker()


def test_an_unknown_name_is_refused_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_BROKER_ULR", "redis://example:6379/0")

    with pytest.raises(SettingsInvalid, match=r"TUSSIS_BROKER_ULR: did you mean TUSSIS_BROKER_URL\?"):
        load_settings()


def test_the_tests_own_variable_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_TEST_DATA", "/data")

    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TUSSIS_MAX_BYTES", "many"),
        ("TUSSIS_MAX_BYTES", "0"),
        ("TUSSIS_MAX_DURATION_S", "nan"),
        ("TUSSIS_LOG_FORMAT", "xml"),
        ("TUSSIS_CONCURRENCY", "-1"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsInvalid, match=name) as refused:
        load_settings()

    assert value in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("need", ["need_broker", "need_database", "need_model"])
def test_what_is_needed_and_not_set_comes_with_an_example(need: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"TUSSIS_\w+ is not set: for example ."):
        getattr(load_settings(), need)()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().max_bytes = 1


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())

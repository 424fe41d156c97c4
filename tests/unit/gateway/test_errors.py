"""The status and the body of every error."""

from __future__ import annotations

import json

import pytest

from tussis.shared import errors
from tussis.shared.errors import TussisError
from tussis.worker.gateway.errors import answer_of, status_of


def kinds() -> list[type[TussisError]]:
    found: list[type[TussisError]] = []
    left = [TussisError]
    while left:
        kind = left.pop()
        found.append(kind)
        left += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_is_answered_in_the_one_form(kind: type[TussisError]) -> None:
    error = kind("a\nb\x1b[31m")

    answer = answer_of(error)

    assert json.loads(bytes(answer.body)) == {"error": {"class": kind.error_class, "message": "a\\nb\\x1b[31m"}}
    assert 400 <= answer.status_code < 600
    assert ("retry-after" in answer.headers) == (
        issubclass(kind, errors.TransientError) or kind is errors.IdempotencyKeyBusy
    )


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.TokenRefused, 401),
        (errors.JobUnknown, 404),
        (errors.InvalidJob, 422),
        (errors.MessageTooLarge, 413),
        (errors.ObjectMissing, 422),
        (errors.ObjectTooLarge, 413),
        (errors.QueueFull, 503),
        (errors.BrokerUnavailable, 503),
        (errors.StorageCredentials, 503),
        (errors.RateExceeded, 429),
    ],
)
def test_the_status_of_an_error(kind: type[TussisError], status: int) -> None:
    assert status_of(kind()) == status

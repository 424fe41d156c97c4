"""One recording's trouble is told from everybody's before a worker pauses."""

from __future__ import annotations

import uuid

import pytest

from tests.support.odd_store import Answer, OddStore, odd_store
from tussis.shared.errors import (
    DatabaseRefused,
    ModelConflict,
    NotInstalled,
    ObjectMissing,
    OperatorError,
    SettingsInvalid,
    StorageAccessDenied,
    StorageCredentials,
    StorageUnavailable,
)
from tussis.shared.messages import Job
from tussis.worker.pipeline.access import DENIED_IN_A_ROW, Access

__all__ = ["odd_store"]

#: What a store says when it refuses everything with one of these errors.
REFUSALS = {
    StorageAccessDenied: (403, "AccessDenied"),
    StorageCredentials: (403, "InvalidAccessKeyId"),
    SettingsInvalid: (400, "AuthorizationHeaderMalformed"),
}
LISTED = Answer(b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>", None)


def refused(kind: type[OperatorError]) -> Answer:
    status, code = REFUSALS[kind]
    return Answer(f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), None, status)


def job(key: str, *, bucket: str = "clinic", profile: str | None = None) -> Job:
    return Job(job_id=str(uuid.uuid4()), bucket=bucket, key=key, enqueued_at=1.0, profile=profile)


@pytest.mark.parametrize("kind", REFUSALS)
def test_an_error_that_one_recording_can_cause_pauses_nothing_until_it_is_proven(
    odd_store: OddStore, kind: type[OperatorError]
) -> None:
    odd_store.answers = {"HEAD": [Answer(b"12345")], "GET": [LISTED]}
    access = Access()
    # One message, however often it comes, where others are served.
    access.granted(job("good.wav"))
    assert not any(access.concerns_all(job("bad.wav"), kind(), odd_store.client) for _ in range(2 * DENIED_IN_A_ROW))
    # A whole bucket that is refused, while another one is served.
    answers = [access.concerns_all(job(f"{n}.wav", bucket="other"), kind(), odd_store.client) for n in range(30)]
    assert not any(answers)
    # What was served is refused as well.
    odd_store.answers = {"HEAD": [refused(kind)], "GET": [refused(kind)]}
    assert access.concerns_all(job("last.wav"), kind(), odd_store.client)


@pytest.mark.parametrize("kind", REFUSALS)
def test_where_nothing_was_served_yet_many_recordings_are_proof(odd_store: OddStore, kind: type[OperatorError]) -> None:
    odd_store.answers = {"GET": [LISTED]}
    access = Access()
    answers = [access.concerns_all(job(f"{n}.wav"), kind(), odd_store.client) for n in range(DENIED_IN_A_ROW)]
    assert answers.index(True) == DENIED_IN_A_ROW - 1


@pytest.mark.parametrize("kind", [StorageCredentials, SettingsInvalid])
def test_credentials_that_list_no_buckets_either_are_everybody_s(
    odd_store: OddStore, kind: type[OperatorError]
) -> None:
    odd_store.answers = {"GET": [refused(kind)], "HEAD": [refused(kind)]}
    assert Access().concerns_all(job("first.wav"), kind(), odd_store.client)
    odd_store.answers = {"GET": [refused(StorageAccessDenied)]}
    assert not Access().concerns_all(job("first.wav"), kind(), odd_store.client)
    odd_store.answers = {"GET": [Answer(b"", None, 501)]}
    assert not Access().concerns_all(job("first.wav"), kind(), odd_store.client)


def test_a_recording_that_is_fetched_begins_the_count_anew(odd_store: OddStore) -> None:
    access = Access()
    for number in range(DENIED_IN_A_ROW - 1):
        assert not access.concerns_all(job(f"{number}.wav"), StorageAccessDenied(), odd_store.client)
    access.granted(job("good.wav"))
    assert not access.concerns_all(job("last.wav"), StorageAccessDenied(), odd_store.client)
    assert odd_store.asked == []


def test_what_no_recording_can_cause_is_everybody_s_at_once(odd_store: OddStore) -> None:
    access = Access(last=job("good.wav"))
    assert access.concerns_all(job("a.wav"), DatabaseRefused(), odd_store.client)
    assert access.concerns_all(job("a.wav"), ModelConflict(), odd_store.client)
    assert not access.concerns_all(job("a.wav"), ObjectMissing(), odd_store.client)
    assert not access.concerns_all(job("a.wav"), StorageUnavailable(), odd_store.client)


def test_a_program_that_only_another_profile_needs_is_that_recording_s(odd_store: OddStore) -> None:
    assert not Access().concerns_all(job("a.wav", profile="legacy"), NotInstalled(), odd_store.client)
    assert Access().concerns_all(job("a.wav"), NotInstalled(), odd_store.client)

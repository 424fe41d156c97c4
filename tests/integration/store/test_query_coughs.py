"""The questions of ``docs/query.md`` from number 13 on, with their answers on recordings of two sites and two days."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support.query_document import QUESTIONS, SECTIONS, number
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, model_facts, some_software
from tussis.shared.events import CoughEvent, find_events
from tussis.shared.store.event_sql import EVENTS
from tussis.shared.store.records import ModelFacts, SegmentScores
from tussis.shared.store.repository import Store

FIRST = 13
LABELS = """uri,cough
s3://recordings/north/a.wav,true
s3://recordings/north/b.wav,true
s3://recordings/south/c.wav,false
s3://recordings/south/e.wav,false
s3://recordings/north/g.png,true
"""
#: The segments of north/short.wav: one cough that is sure, and one that is not.
SHORT = SegmentScores(
    start_s=[0.5 * n for n in range(32)],
    end_s=[0.5 * n + 2 for n in range(32)],
    probability=[0.9 if 4 <= n < 9 else 0.25 if 20 <= n < 25 else 0.1 for n in range(32)],
    logit=[0.0] * 32,
)


def job_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> str:
    """The URL of a database with the recordings of two days."""
    with Store.connect(shared_store_url) as store:
        fill(store, shared_store_url)
    return shared_store_url


def fill(store: Store, url: str) -> None:
    model, other = model_facts(), model_facts(version="2", sha256="b" * 64)

    def analysed(
        key: str,
        probability: float,
        seconds: float,
        *bouts: tuple[float, int],
        model: ModelFacts = model,
        **changes: Any,
    ) -> None:
        events = tuple(CoughEvent(start, start + 0.5 * bins, 0.9, 0.8, bins) for start, bins in bouts)
        job = a_job(
            **{"key": key, "metadata": {}} | {n: changes.pop(n) for n in ("metadata", "job_id") if n in changes}
        )
        claim = claimed(store.claim(a_claim(job, model, etag=changes.pop("etag", key))))
        fields: dict[str, Any] = {
            "events": events,
            "duration_s": seconds,
            "analyzed_s": seconds,
            "size_bytes": len(key),
        } | changes
        store.complete(claim, a_result(probability=probability, **fields))

    def facts(time: str, site: str, subject: str) -> dict[str, Any]:
        return {"metadata": {"recorded_at": at(time).isoformat(), "site": site, "subject": subject}}

    analysed("north/a.wav", 0.92, 1800.0, (60.0, 2), model=other)
    analysed("north/b.wav", 0.60, 1200.0, (30.0, 2), model=other)
    analysed("south/c.wav", 0.70, 3600.0, etag="replaced")
    execute(url, "UPDATE analyses SET finished_at = now() - interval '3 days'")
    analysed("north/a.wav", 0.9, 1800.0, (60.0, 2), (1200.0, 4), job_id=job_id(1), **facts("22T10:00", "north", "P-1"))
    execute(url, "UPDATE analyses SET finished_at = now() - interval '2 days' WHERE bag_probability = 0.9")
    analysed("north/b.wav", 0.65, 1200.0, (30.0, 2), (900.0, 2), **facts("22T10:50", "north", "P-1"))
    analysed("south/c.wav", 0.2, 3600.0, **facts("22T23:30", "south", "P-2"))
    silence: dict[str, Any] = {"peak_dbfs": None, "rms_dbfs": None, "warnings": ("silent",)}
    analysed("south/d.wav", 0.1, 600.0, **silence, **facts("23T08:00", "south", "P-2"))
    same: dict[str, Any] = {"etag": "same", "warnings": ("clipped",)}
    analysed("south/e.wav", 0.8, 600.0, (0.5, 1), **same, **facts("23T08:30", "south", "P-3"))
    analysed("south/copy.wav", 0.8, 600.0, (0.5, 1), **same, size_bytes=len("south/e.wav"))
    short = find_events(SHORT.start_s, SHORT.probability, 17.5)
    assert len(short) == 1
    analysed("north/short.wav", 0.95, 17.5, count=32, segments=SHORT, events=short, software=some_software())
    picture = a_job(key="north/g.png", job_id=job_id(2))
    store.fail(claimed(store.claim(a_claim(picture, model))), "not_audio", "a picture")
    store.refuse(a_refusal(a_job(key="south/h.wav")))
    store.claim(a_claim(a_job(key="south/i.wav", job_id=job_id(3)), model))
    # The times of the answers, in the order of their analyses. The day of the newest two failures is known.
    execute(
        url,
        "UPDATE analyses SET finished_at = now() - interval '1 hour' + id * interval '1 second' "
        "WHERE finished_at > now() - interval '1 day' AND state = 'succeeded'",
    )
    execute(url, "UPDATE analyses SET finished_at = '2026-11-20 23:30Z' WHERE error_class = 'not_audio'")
    execute(url, "UPDATE analyses SET finished_at = '2026-11-21 00:30Z' WHERE error_class = 'object_missing'")


def s3(key: str) -> str:
    return f"s3://recordings/{key}"


#: Question -> its answer on the filled database, computed by hand from the fixture.
ANSWERS: dict[int, list[tuple[Any, ...]]] = {
    # 0.5 h and 20 min in the north; 1 h and 10 min in the south, without the silent recording.
    13: [
        ("north", pytest.approx(5 / 6), 4, 5.0, pytest.approx(4.8)),
        ("south", pytest.approx(7 / 6), 1, 0.5, pytest.approx(6 / 7)),
    ],
    14: [
        (s3("north/a.wav"), "P-1", at("22T10:01"), at("22T10:20"), 2, 60.0, 1200.0),
        (s3("north/b.wav"), "P-1", at("22T10:50:30"), at("22T11:05"), 2, 30.0, 900.0),
        (s3("north/short.wav"), None, None, None, 1, 3.5, 3.5),
        (s3("south/copy.wav"), None, None, None, 1, 0.5, 0.5),
        (s3("south/e.wav"), "P-3", at("23T08:30:00.500"), at("23T08:30:00.500"), 1, 0.5, 0.5),
    ],
    15: [
        (date(2026, 11, 22), "north", at("22T10:01"), at("22T11:05"), 4),
        (date(2026, 11, 23), "south", at("23T08:30:00.500"), at("23T08:30:00.500"), 1),
    ],
    16: [
        (s3("north/b.wav"), True, 0.65, 2, []),
        (s3("south/copy.wav"), True, 0.8, 1, ["clipped"]),
        (s3("south/e.wav"), True, 0.8, 1, ["clipped"]),
        (s3("south/d.wav"), False, 0.1, 0, ["silent"]),
    ],
    # Labels: a (0.9) and b (0.65) are coughs, c (0.2) and e (0.8) are not. The picture has no result.
    17: [
        (0.1, 2, 2, 1, 0),
        (0.3, 2, 1, 1, 0.5),
        (0.5, 2, 1, 1, 0.5),
        (0.7, 1, 1, 0.5, 0.5),
        (0.9, 0, 0, 0, 1),
    ],
    18: [
        (s3("north/b.wav"), "succeeded", True, "succeeded", False),
        (s3("south/c.wav"), "succeeded", False, "succeeded", True),
        (s3("south/d.wav"), "succeeded", False, None, None),
        (s3("south/e.wav"), "succeeded", True, None, None),
        (s3("south/copy.wav"), "succeeded", True, None, None),
        (s3("north/short.wav"), "succeeded", True, None, None),
    ],
    19: [([s3("south/copy.wav"), s3("south/e.wav")], 11, False)],
    20: [
        (index, event.start_s, event.end_s, event.peak, pytest.approx(event.mean), event.bins)
        for index, event in enumerate(find_events(SHORT.start_s, SHORT.probability, 17.5, 0.2))
    ],
    21: [(s3("south/d.wav"), False, None, ["silent"], 600.0)],
    22: [
        (job_id(1), "succeeded", s3("north/a.wav"), True, 0.9, None),
        (job_id(2), "failed", s3("north/g.png"), None, None, "not_audio"),
        (job_id(3), "running", s3("south/i.wav"), None, None, None),
        (job_id(4), "not received", None, None, None, None),
    ],
    23: [(s3("north/b.wav"), 0.65, 0.60, True, False)],
    24: [(date(2026, 11, 21), "object_missing", 1), (date(2026, 11, 20), "not_audio", 1)],
    # 11:00 has 10 minutes of north/b.wav with one event; 10:00 has 30 and 10 minutes with three.
    25: [
        (at("22T11:00"), "north", 1, pytest.approx(1 / 6), pytest.approx(6.0)),
        (at("23T08:00"), "south", 1, pytest.approx(1 / 6), pytest.approx(6.0)),
        (at("22T10:00"), "north", 3, pytest.approx(2 / 3), pytest.approx(4.5)),
        (at("22T23:00"), "south", 0, 0.5, 0.0),
        (at("23T00:00"), "south", 0, 0.5, 0.0),
    ],
    26: [
        (None, None, None, None, 9),
        ("0.1.0", "1.32.0", "libsndfile 1.2.2", "a processor (avx2)", 1),
    ],
}


def test_each_question_has_an_answer_here() -> None:
    assert list(ANSWERS) == [number(title) for title in QUESTIONS if number(title) >= FIRST]
    assert len(ANSWERS) >= 12
    assert len(ANSWERS[20]) == 2


@pytest.mark.parametrize("title", [title for title in QUESTIONS if number(title) >= FIRST])
def test_each_question_has_the_right_answer(filled: str, title: str) -> None:
    with psycopg.connect(filled) as connection:
        if number(title) == 17:
            load_labels(connection, SECTIONS[title])
        # Without parameters, as an analyst would send it.
        found = connection.execute(QUESTIONS[title].encode()).fetchall()
    assert [tuple(plain(value) for value in row) for row in found] == ANSWERS[number(title)]


def load_labels(connection: psycopg.Connection, section: str) -> None:
    """Run the statements of the document before the query. ``\\copy`` is a command of psql."""
    create, copy = section.split("```\n")[1].strip().splitlines()
    connection.execute(create.encode())
    with connection.cursor().copy(copy.replace("\\copy labels FROM 'labels.csv'", "COPY labels FROM STDIN")) as labels:
        labels.write(LABELS)


def plain(value: Any) -> Any:
    """Times in UTC, exact numbers as floats, ids as texts."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, Decimal):
        return float(value)
    return str(value) if isinstance(value, UUID) else value


def test_the_query_of_another_threshold_is_the_rule_of_the_code() -> None:
    [title] = [title for title in QUESTIONS if number(title) == 20]
    of_one = "(\n        SELECT analysis_id FROM current WHERE bucket = 'recordings' AND key = 'north/short.wav'\n    )"
    rule = EVENTS.replace("%(analysis_id)s", of_one).replace("%(threshold)s", "0.2")
    assert QUESTIONS[title].strip() == rule.strip() + ";"

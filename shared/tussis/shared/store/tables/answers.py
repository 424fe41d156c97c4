"""The tables of what an analysis finds: bags, segments, events, and its progress. See ``docs/schema.md``."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    Table,
    func,
)
from sqlalchemy.dialects.postgresql import BYTEA

from tussis.shared.store.tables.analyses import analyses
from tussis.shared.store.tables.base import Time, metadata

bags = Table(
    "bags",
    metadata,
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        nullable=False,
        comment="analyses.id",
    ),
    Column("bag_index", Integer, nullable=False, comment="index of the bag in the analysis; the first is 0"),
    Column("start_s", Double, nullable=False, comment="start of the bag in the recording, in seconds"),
    Column("end_s", Double, nullable=False, comment="end of the audio in the bag, in seconds, without padding"),
    Column("probability", Double, nullable=False, comment="probability that the bag contains a cough, 0 to 1"),
    Column("logit", Double, nullable=False, comment="logit of probability (natural logarithm of the odds)"),
    Column("segments", Integer, nullable=False, comment="number of segments in the bag"),
    PrimaryKeyConstraint("analysis_id", "bag_index"),
    CheckConstraint("bag_index >= 0", name="bag_index"),
    CheckConstraint("0 <= start_s AND start_s <= end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
    CheckConstraint("logit <> 'NaN'", name="logit"),
    CheckConstraint("segments >= 1", name="segments"),
    comment=(
        "One row for each bag: up to 32 consecutive segments that the model scores together. Coverage head has one bag."
    ),
)

segments = Table(
    "segments",
    metadata,
    Column("analysis_id", BigInteger, nullable=False, comment="analyses.id"),
    Column("bag_index", Integer, nullable=False, comment="bags.bag_index"),
    Column("segment_index", Integer, nullable=False, comment="index of the segment in its bag; the first is 0"),
    Column(
        "analysis_created_at",
        Time,
        nullable=False,
        comment="analyses.created_at; part of the key so that the table can be partitioned by it",
    ),
    Column("start_s", Double, nullable=False, comment="start of the segment in the recording, in seconds"),
    Column(
        "end_s",
        Double,
        nullable=False,
        comment="end of the segment in seconds, including padding after the end of the recording",
    ),
    Column("probability", Double, nullable=False, comment="probability that the segment contains a cough, 0 to 1"),
    Column("logit", Double, nullable=False, comment="logit of probability (natural logarithm of the odds)"),
    PrimaryKeyConstraint("analysis_id", "bag_index", "segment_index", "analysis_created_at"),
    ForeignKeyConstraint(["analysis_id", "bag_index"], [bags.c.analysis_id, bags.c.bag_index], ondelete="CASCADE"),
    CheckConstraint("segment_index >= 0", name="segment_index"),
    CheckConstraint("0 <= start_s AND start_s < end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
    CheckConstraint("logit <> 'NaN'", name="logit"),
    comment="One row for each segment of two seconds in a succeeded analysis.",
    # One partition for each month, and one for all other rows. tussis.shared.store.partitions makes them.
    postgresql_partition_by="RANGE (analysis_created_at)",
)

events = Table(
    "events",
    metadata,
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        nullable=False,
        comment="analyses.id",
    ),
    Column("event_index", Integer, nullable=False, comment="index of the event; the first is 0"),
    Column("start_s", Double, nullable=False, comment="start of the event in the recording, in seconds"),
    Column("end_s", Double, nullable=False, comment="end of the event in the recording, in seconds"),
    Column("peak", Double, nullable=False, comment="highest probability of a bin of the event, 0 to 1"),
    Column("mean", Double, nullable=False, comment="mean probability of the bins of the event, 0 to 1"),
    Column("bins", Integer, nullable=False, comment="number of bins of half a second"),
    PrimaryKeyConstraint("analysis_id", "event_index"),
    CheckConstraint("event_index >= 0", name="event_index"),
    CheckConstraint("0 <= start_s AND start_s < end_s AND end_s < 'Infinity'", name="span"),
    CheckConstraint("0 <= mean AND mean <= peak AND peak <= 1", name="probability"),
    CheckConstraint("bins >= 1", name="bins"),
    comment="One row for each cough event: a bout of one or more coughs. docs/cough-events.md has the rule.",
)

bag_progress = Table(
    "bag_progress",
    metadata,
    Column(
        "analysis_id",
        BigInteger,
        ForeignKey(analyses.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="analyses.id",
    ),
    Column("bags_total", Integer, nullable=False, comment="number of bags of the recording"),
    Column("bags_done", Integer, nullable=False, comment="number of finished bags, from the start of the recording"),
    Column(
        "scores",
        BYTEA,
        nullable=False,
        comment="scores of the finished bags; the next attempt continues after them",
    ),
    Column("updated_at", Time, nullable=False, server_default=func.now(), comment="time at which the row last changed"),
    CheckConstraint("0 <= bags_done AND bags_done <= bags_total", name="bags"),
    comment="One row for each long analysis that has no result yet: its finished bags.",
)

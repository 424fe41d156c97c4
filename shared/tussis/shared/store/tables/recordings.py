"""The table of recordings. See ``docs/schema.md``."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Double,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from tussis.shared.store import upstream_facts
from tussis.shared.store.tables.base import Time, metadata

recordings = Table(
    "recordings",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    # Collation C is the order of S3. With it, LIKE 'prefix%' can use the unique index.
    Column("bucket", Text(collation="C"), nullable=False, comment="S3 bucket"),
    Column("key", Text(collation="C"), nullable=False, comment="S3 object key, not percent-encoded"),
    Column("version_id", Text, comment="S3 version id; null if the bucket has no versions or the version is unknown"),
    Column(
        "etag",
        Text,
        nullable=False,
        comment="S3 entity tag without quotes; empty if it is unknown because no object was found",
    ),
    Column("size_bytes", BigInteger, comment="size of the object in bytes"),
    Column("duration_s", Double, comment="duration of the decoded audio in seconds"),
    Column("rate_hz", Integer, comment="sample rate of the source in Hz"),
    Column("channels", Integer, comment="number of channels of the source"),
    Column("codec", Text, comment="audio codec, as named by the decoder"),
    Column("container", Text, comment="container format, detected from the content"),
    Column(
        "decoder",
        Text,
        comment="decoder of the most recent analysis; analyses.decoder has the decoder of each analysis",
    ),
    Column(
        "metadata",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="metadata of the most recent message that had any, as JSON",
    ),
    Column("created_at", Time, nullable=False, server_default=func.now(), comment="time at which the row was created"),
    Column("updated_at", Time, nullable=False, server_default=func.now(), comment="time at which the row last changed"),
    # PostgreSQL computes these when it writes the metadata, so that a query on a day can use an index.
    *(
        Column(name, kind, Computed(f"tussis_{name}(metadata)", persisted=True), comment=upstream_facts.COMMENTS[name])
        for name, kind in (("recorded_at", Time), ("site", Text), ("subject", Text))
    ),
    UniqueConstraint("bucket", "key", "etag"),
    CheckConstraint("bucket <> '' AND key <> ''", name="address"),
    CheckConstraint("size_bytes >= 0", name="size_bytes"),
    CheckConstraint("duration_s >= 0 AND duration_s < 'Infinity'", name="duration_s"),
    CheckConstraint("rate_hz > 0", name="rate_hz"),
    CheckConstraint("channels > 0", name="channels"),
    CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    Index(None, "recorded_at"),
    # The time at which a recording was made, as in the view drift_by_week.
    Index("recordings_made_at_idx", func.coalesce(text("recorded_at"), text("created_at"))),
    comment="One row for each content of an object in S3. The same key with another entity tag is another recording.",
)

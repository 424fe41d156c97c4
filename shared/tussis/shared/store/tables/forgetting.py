"""The tables of deleted and forgotten recordings, and of what operators did. See ``docs/schema.md``."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB

from tussis.shared.store.tables.base import Time, metadata
from tussis.shared.store.tables.models import models

tombstones = Table(
    "tombstones",
    metadata,
    Column("bucket", Text(collation="C"), nullable=False, comment="S3 bucket"),
    Column("key", Text(collation="C"), nullable=False, comment="S3 object key, not percent-encoded"),
    Column("etag", Text, nullable=False, comment="S3 entity tag without quotes"),
    Column("model_id", BigInteger, ForeignKey(models.c.id), nullable=False, comment="models.id"),
    Column("profile", Text, nullable=False, comment="preprocessing profile"),
    Column("coverage", Text, nullable=False, comment="part of the recording that was analysed"),
    Column(
        "profile_overridden",
        Boolean,
        nullable=False,
        comment="true if the job requested another profile than the manifest",
    ),
    Column(
        "coverage_overridden",
        Boolean,
        nullable=False,
        comment="true if the job requested another coverage than the manifest",
    ),
    Column(
        "deleted_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the analysis was deleted",
    ),
    PrimaryKeyConstraint("bucket", "key", "etag", "model_id", "profile", "coverage"),
    comment="One row for each analysis that tussis retain deleted. A sweep does not enqueue its object again.",
)

forget_keys = Table(
    "forget_keys",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True, comment="primary key"),
    Column("inner_pad", BYTEA, nullable=False, comment="the key of the hashes XOR 0x36, as HMAC (RFC 2104) needs it"),
    Column("outer_pad", BYTEA, nullable=False, comment="the key of the hashes XOR 0x5c"),
    Column("created_at", Time, nullable=False, server_default=func.now(), comment="time at which the row was created"),
    UniqueConstraint("inner_pad"),
    comment=(
        "The keys of the hashes in forgotten and audit_trail. New hashes use the first row. Only the owner reads them."
    ),
)

forgotten = Table(
    "forgotten",
    metadata,
    Column(
        "digest", BYTEA, primary_key=True, comment="HMAC-SHA256 of the kind and the name, with a key of forget_keys"
    ),
    Column("kind", Text, nullable=False, comment="object: bucket/key; prefix: bucket/prefix; subject: a person"),
    Column("length", Integer, comment="characters of bucket/prefix; null for the other kinds"),
    Column(
        "forgotten_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which tussis forget wrote the row",
    ),
    CheckConstraint("kind IN ('object', 'prefix', 'subject')", name="kind"),
    CheckConstraint("(kind = 'prefix') = (length IS NOT NULL)", name="length"),
    Index("forgotten_prefix_idx", "length", postgresql_where=text("kind = 'prefix'")),
    comment=(
        "One row for each recording, prefix or person that tussis forget erased, as a hash. No row of such a recording "
        "is stored again."
    ),
)

audit_trail = Table(
    "audit_trail",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column(
        "at", Time, nullable=False, server_default=text("clock_timestamp()"), comment="time at which it was written"
    ),
    Column("action", Text, nullable=False, comment="what was done; docs/privacy.md lists the actions"),
    Column("actor", Text, nullable=False, comment="who did it: user@host, or the text of --by"),
    Column(
        "login",
        Text,
        nullable=False,
        server_default=text("session_user"),
        comment="role with which the session logged in to the database",
    ),
    Column(
        "targets",
        ARRAY(BYTEA),
        nullable=False,
        server_default=text("'{}'::bytea[]"),
        comment="hashes of the recordings, prefixes or persons, as in forgotten; empty for other actions",
    ),
    Column(
        "details",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="counts and names of models, as JSON; never a key, metadata or a person",
    ),
    Index(None, "at"),
    CheckConstraint("jsonb_typeof(details) = 'object'", name="details"),
    comment="One row for each deed of an operator. Rows are never changed or deleted: a trigger refuses it.",
)

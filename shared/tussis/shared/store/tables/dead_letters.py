"""The table of messages that could not be read. See ``docs/schema.md``."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, Integer, Table, Text, UniqueConstraint, func, text

from tussis.shared.store.tables.base import Time, metadata

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column(
        "raw_sha256", Text, nullable=False, comment="SHA-256 of the complete message, in lower-case hexadecimal digits"
    ),
    Column("raw", Text, nullable=False, comment="the message as it was received, limited to 65536 characters"),
    Column("job_id", Text, comment="value of the field job_id in the message; null if there is none"),
    Column("error_class", Text, nullable=False, comment="malformed_message or unknown_message_version"),
    Column("error_message", Text, nullable=False, comment="description of the error"),
    Column(
        "received_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the message was first received",
    ),
    Column(
        "last_received_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the message was last received",
    ),
    Column(
        "deliveries", Integer, nullable=False, server_default="1", comment="number of times the message was received"
    ),
    Column(
        "ended_job",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="true if the ledger held this message for job_id; the message then ended the job",
    ),
    UniqueConstraint("raw_sha256"),
    Index(None, "received_at"),
    Index("dead_letters_ended_job_idx", "job_id", postgresql_where=text("ended_job")),
    comment="One row for each message that could not be read and therefore belongs to no recording.",
)

"""The tables of models, and of the software that runs them. See ``docs/schema.md``."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from tussis.shared.store.tables.base import Time, metadata

models = Table(
    "models",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("name", Text, nullable=False, comment="name in the manifest"),
    Column("version", Text, nullable=False, comment="version in the manifest"),
    Column("sha256", Text, nullable=False, comment="SHA-256 of the ONNX file, in lower-case hexadecimal digits"),
    Column("profile", Text, nullable=False, comment="preprocessing profile in the manifest"),
    Column(
        "threshold",
        Double,
        nullable=False,
        comment="threshold in the most recent manifest; the decision is cough if the bag probability is above it",
    ),
    Column("provenance", Text, nullable=False, comment="origin of the model, as text"),
    Column("parent", Text, comment="name@version of the model from which this model was made; null if there is none"),
    Column(
        "first_seen_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which a worker first started with this model",
    ),
    Column(
        "last_served_at",
        Time,
        comment=(
            "time of the last report of a worker that serves this model; 60 s before its end if the last worker ended "
            "in order; null: none since revision 0009"
        ),
    ),
    Column(
        "active_at",
        Time,
        comment="time at which the model last became the active model; the latest one is active; null: never",
    ),
    UniqueConstraint("sha256"),
    UniqueConstraint("name", "version"),
    CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    CheckConstraint("threshold BETWEEN 0 AND 1", name="threshold"),
    comment="One row for each model that a worker has served.",
)

software = Table(
    "software",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True, comment="primary key"),
    Column("tussis_version", Text, nullable=False, comment="version of Tussis"),
    Column("onnxruntime_version", Text, nullable=False, comment="version of onnxruntime, which ran the model"),
    Column("torch_version", Text, nullable=False, comment="version of torch, which made the images"),
    Column("torchaudio_version", Text, nullable=False, comment="version of torchaudio, which resampled and filtered"),
    Column(
        "decoder_library",
        Text,
        nullable=False,
        comment="library of the decoder with its version; of a failed analysis, the libraries that its profile uses",
    ),
    Column("provider", Text, nullable=False, comment="execution provider of onnxruntime: cpu, cuda or tensorrt"),
    Column(
        "graph",
        Text,
        nullable=False,
        comment="graph of the model: original, or the name of the rewritten graph that the worker chose",
    ),
    Column(
        "processor",
        Text,
        nullable=False,
        comment="processor that ran the model, with the instruction set that decides its arithmetic; empty if unknown",
    ),
    UniqueConstraint(
        "tussis_version",
        "onnxruntime_version",
        "torch_version",
        "torchaudio_version",
        "decoder_library",
        "provider",
        "graph",
        "processor",
        name="software_key",
    ),
    comment=(
        "One row for each combination of software and processor that made a result or a failure. Rows are never "
        "changed or deleted."
    ),
)

model_activations = Table(
    "model_activations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("model_id", BigInteger, ForeignKey(models.c.id), nullable=False, comment="models.id"),
    Column(
        "activated_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the model was activated",
    ),
    Column("activated_by", Text, nullable=False, comment="who activated it: user@host, or the text of --by"),
    Column("forced", Boolean, nullable=False, comment="true if --force skipped a check"),
    comment="One row for each time that tussis models activate chose the active model. The newest row counts.",
)

model_shadows = Table(
    "model_shadows",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="primary key"),
    Column("model_id", BigInteger, ForeignKey(models.c.id), nullable=False, comment="models.id"),
    Column(
        "share",
        Double,
        nullable=False,
        comment="share of the new recordings that the model also analyses, above 0 and at most 1",
    ),
    Column(
        "started_at",
        Time,
        nullable=False,
        server_default=func.now(),
        comment="time at which the model became the shadow",
    ),
    Column("started_by", Text, nullable=False, comment="who started it: user@host, or the text of --by"),
    Column("stopped_at", Time, comment="time at which it was stopped; null: the model is the shadow model"),
    CheckConstraint("share > 0 AND share <= 1", name="share"),
    Index("model_shadows_open_idx", text("(true)"), unique=True, postgresql_where=text("stopped_at IS NULL")),
    comment=(
        "One row for each time that tussis models shadow made a model the shadow model. At most one row is not stopped."
    ),
)

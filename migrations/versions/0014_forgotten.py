"""Forgotten recordings, and the audit trail: their tables, functions and triggers.

Revision: 0014
After: 0013

Rights: a worker and `tussis serve` call tussis_is_forgotten (a sweep, an upload) and need no right to the tables,
because the triggers run with the rights of the owner. Every role that may act as an operator calls tussis_note.
`tussis forget` needs the rights of the owner, as `tussis retain` does. An analyst needs nothing here and must not read
forget_keys, forgotten or audit_trail. Nobody but the owner reads forget_keys.
"""

from __future__ import annotations

import secrets
from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
FORGOTTEN_STATE: Final = "TF001"
FORGET_LOCK: Final = 0x74757373697366

# The body of every check. A claim takes the lock before it looks, and keeps it until its transaction ends. A new
# tombstone is written under the exclusive lock. So a claim either sees the tombstone, or has ended when the tombstone
# is written: `tussis forget` then finds its rows.
_CHECKED: Final = f"PERFORM pg_advisory_xact_lock_shared({FORGET_LOCK});"

_DIGEST: Final = """
CREATE FUNCTION tussis_digest(inner_pad bytea, outer_pad bytea, what text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$ SELECT sha256(outer_pad || sha256(inner_pad || convert_to(what, 'UTF8'))) $function$
"""
_FORGET_DIGEST: Final = """
CREATE FUNCTION tussis_forget_digest(kind text, name text) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp
AS $function$
    SELECT tussis_digest(forget_keys.inner_pad, forget_keys.outer_pad, kind || ':' || name)
    FROM forget_keys
    ORDER BY forget_keys.id
    LIMIT 1
$function$
"""
_IS_FORGOTTEN: Final = """
CREATE FUNCTION tussis_is_forgotten(bucket text, key text, metadata jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp
AS $function$
DECLARE
    pads record;
    digests bytea[];
    step integer;
BEGIN
    IF NOT EXISTS (SELECT FROM forgotten) THEN
        RETURN false;
    END IF;
    FOR pads IN SELECT forget_keys.inner_pad, forget_keys.outer_pad FROM forget_keys LOOP
        digests := ARRAY[
            tussis_digest(pads.inner_pad, pads.outer_pad, 'object:' || bucket || '/' || key),
            tussis_digest(pads.inner_pad, pads.outer_pad, 'subject:' || (metadata ->> 'subject'))
        ];
        step := 0;
        LOOP
            SELECT min(forgotten.length) INTO step
            FROM forgotten
            WHERE forgotten.kind = 'prefix' AND forgotten.length > step;
            EXIT WHEN step IS NULL;
            digests := digests || tussis_digest(
                pads.inner_pad, pads.outer_pad, 'prefix:' || left(bucket || '/' || key, step)
            );
        END LOOP;
        IF EXISTS (SELECT FROM forgotten WHERE forgotten.digest = ANY (digests)) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$function$
"""
_REFUSE: Final = f"""
CREATE FUNCTION tussis_refuse_forgotten() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {{schema}}, pg_temp
AS $function$
BEGIN
    {_CHECKED}
    IF NOT EXISTS (SELECT FROM forgotten) THEN
        RETURN NEW;
    END IF;
    IF tussis_is_forgotten(NEW.bucket, NEW.key, NEW.metadata) THEN
        RAISE EXCEPTION 'the recording is forgotten' USING ERRCODE = '{FORGOTTEN_STATE}';
    END IF;
    RETURN NEW;
END
$function$
"""
# A message of a forgotten recording that no worker can read leaves no dead letter.
_DROP_LETTER: Final = f"""
CREATE FUNCTION tussis_drop_forgotten_letter() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {{schema}}, pg_temp
AS $function$
DECLARE
    message jsonb;
BEGIN
    {_CHECKED}
    IF NOT EXISTS (SELECT FROM forgotten) THEN
        RETURN NEW;
    END IF;
    BEGIN
        message := NEW.raw::jsonb;
    EXCEPTION WHEN OTHERS THEN
        RETURN NEW;
    END;
    message := coalesce(message -> 'message', message);
    IF tussis_is_forgotten(message ->> 'bucket', message ->> 'key', message -> 'metadata') THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$function$
"""
_NOTE: Final = """
CREATE FUNCTION tussis_note(action text, actor text, targets bytea[], details jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp
AS $function$ INSERT INTO audit_trail (action, actor, targets, details) VALUES ($1, $2, $3, $4) $function$
"""
_KEEP_TRAIL: Final = """
CREATE FUNCTION tussis_keep_trail() RETURNS trigger LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION 'the audit trail is never changed or deleted';
END
$function$
"""
_TRIGGERS: Final = (
    "CREATE TRIGGER recordings_forgotten BEFORE INSERT OR UPDATE ON recordings "
    "FOR EACH ROW EXECUTE FUNCTION tussis_refuse_forgotten()",
    "CREATE TRIGGER dead_letters_forgotten BEFORE INSERT ON dead_letters "
    "FOR EACH ROW EXECUTE FUNCTION tussis_drop_forgotten_letter()",
    "CREATE TRIGGER audit_trail_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_trail "
    "FOR EACH STATEMENT EXECUTE FUNCTION tussis_keep_trail()",
)
#: The functions that the code calls: who may call them is decided by a grant, not by PUBLIC.
_CALLED: Final = (
    "tussis_forget_digest(text, text)",
    "tussis_is_forgotten(text, text, jsonb)",
    "tussis_note(text, text, bytea[], jsonb)",
)


_TIME = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "forget_keys",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False, comment="primary key"),
        sa.Column(
            "inner_pad",
            postgresql.BYTEA(),
            nullable=False,
            comment="the key of the hashes XOR 0x36, as HMAC (RFC 2104) needs it",
        ),
        sa.Column("outer_pad", postgresql.BYTEA(), nullable=False, comment="the key of the hashes XOR 0x5c"),
        sa.Column(
            "created_at",
            _TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="time at which the row was created",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("forget_keys_pkey")),
        sa.UniqueConstraint("inner_pad", name=op.f("forget_keys_inner_pad_key")),
        comment=(
            "The keys of the hashes in forgotten and audit_trail. New hashes use the first row. Only the owner reads "
            "them."
        ),
    )
    op.create_table(
        "forgotten",
        sa.Column(
            "digest",
            postgresql.BYTEA(),
            nullable=False,
            comment="HMAC-SHA256 of the kind and the name, with a key of forget_keys",
        ),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="object: bucket/key; prefix: bucket/prefix; subject: a person",
        ),
        sa.Column("length", sa.Integer(), comment="characters of bucket/prefix; null for the other kinds"),
        sa.Column(
            "forgotten_at",
            _TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="time at which tussis forget wrote the row",
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("forgotten_pkey")),
        sa.CheckConstraint("kind IN ('object', 'prefix', 'subject')", name=op.f("forgotten_kind_check")),
        sa.CheckConstraint("(kind = 'prefix') = (length IS NOT NULL)", name=op.f("forgotten_length_check")),
        comment=(
            "One row for each recording, prefix or person that tussis forget erased, as a hash. No row of such a "
            "recording is stored again."
        ),
    )
    op.create_index("forgotten_prefix_idx", "forgotten", ["length"], postgresql_where=sa.text("kind = 'prefix'"))
    op.create_table(
        "audit_trail",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="primary key"),
        sa.Column(
            "at",
            _TIME,
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="time at which it was written",
        ),
        sa.Column("action", sa.Text(), nullable=False, comment="what was done; docs/privacy.md lists the actions"),
        sa.Column("actor", sa.Text(), nullable=False, comment="who did it: user@host, or the text of --by"),
        sa.Column(
            "login",
            sa.Text(),
            server_default=sa.text("session_user"),
            nullable=False,
            comment="role with which the session logged in to the database",
        ),
        sa.Column(
            "targets",
            postgresql.ARRAY(postgresql.BYTEA()),
            server_default=sa.text("'{}'::bytea[]"),
            nullable=False,
            comment="hashes of the recordings, prefixes or persons, as in forgotten; empty for other actions",
        ),
        sa.Column(
            "details",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="counts and names of models, as JSON; never a key, metadata or a person",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_trail_pkey")),
        sa.CheckConstraint("jsonb_typeof(details) = 'object'", name=op.f("audit_trail_details_check")),
        comment=("One row for each deed of an operator. Rows are never changed or deleted: a trigger refuses it."),
    )
    op.create_index("audit_trail_at_idx", "audit_trail", ["at"])
    connection = op.get_bind()
    for statement in statements(str(connection.exec_driver_sql("SELECT current_schema()").scalar())):
        connection.exec_driver_sql(statement)
    # HMAC pads a key of 32 bytes to the 64 bytes of a block of SHA-256.
    key = secrets.token_bytes(32).ljust(64, bytes(1))
    pads = {"inner": bytes(byte ^ 0x36 for byte in key), "outer": bytes(byte ^ 0x5C for byte in key)}
    connection.execute(sa.text("INSERT INTO forget_keys (inner_pad, outer_pad) VALUES (:inner, :outer)"), pads)


def downgrade() -> None:
    op.execute("DROP TRIGGER recordings_forgotten ON recordings")
    op.execute("DROP TRIGGER dead_letters_forgotten ON dead_letters")
    for table in ("audit_trail", "forgotten", "forget_keys"):
        op.drop_table(table)
    for function in (
        *_CALLED,
        "tussis_refuse_forgotten()",
        "tussis_drop_forgotten_letter()",
        "tussis_keep_trail()",
        "tussis_digest(bytea, bytea, text)",
    ):
        op.execute(f"DROP FUNCTION {function}")


def statements(schema: str) -> list[str]:
    """The statements that create the functions and triggers. ``schema`` is the schema of the tables."""
    quoted = '"' + schema.replace('"', '""') + '"'
    functions = (_DIGEST, _FORGET_DIGEST, _IS_FORGOTTEN, _REFUSE, _DROP_LETTER, _NOTE, _KEEP_TRAIL)
    revoked = (f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in _CALLED)
    return [*(text.format(schema=quoted) for text in functions), *_TRIGGERS, *revoked]

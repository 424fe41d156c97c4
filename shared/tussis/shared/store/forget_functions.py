"""Functions and triggers of the database for forgotten recordings and for the audit trail.

The check is in the database and not in the worker, for three reasons: it is part of the statement that writes, it holds
for every statement that writes a recording, and the key of the hashes stays in the database. The functions run with the
rights of their owner, so that a worker needs no right to read the hashes or the key.
"""

from __future__ import annotations

from typing import Final

#: Of an exception of the trigger. The classes from I to Z are free for applications.
FORGOTTEN_STATE: Final = "TF001"
#: The advisory lock between a check and a new tombstone. An arbitrary number: "tussisf" in ASCII.
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


def statements(schema: str) -> list[str]:
    """The statements that create the functions and triggers. ``schema`` is the schema of the tables."""
    quoted = '"' + schema.replace('"', '""') + '"'
    functions = (_DIGEST, _FORGET_DIGEST, _IS_FORGOTTEN, _REFUSE, _DROP_LETTER, _NOTE, _KEEP_TRAIL)
    revoked = (f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in _CALLED)
    return [*(text.format(schema=quoted) for text in functions), *_TRIGGERS, *revoked]

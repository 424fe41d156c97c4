"""The SQL that chooses the recordings which the shadow model also analyses."""

from __future__ import annotations

from typing import Final

#: A number from 0 (inclusive) to 1 (exclusive) for each object: the first 32 bits of the SHA-256 of ``bucket/key``,
#: divided by 2 ** 32. A recording is chosen if its number is below the share. A larger share therefore chooses the same
#: recordings and others. The format has the placeholders ``{bucket}`` and ``{key}``.
POSITION: Final = (
    "('x' || encode(substr(sha256(convert_to({bucket} || '/' || {key}, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint "
    "/ 4294967296.0::double precision"
)

_POSITION_OF_CLAIM: Final = POSITION.format(bucket="%(bucket)s::text", key="%(key)s::text")

#: The shadow model (name@version), if it must also analyse the object of a claim; otherwise no row. The parameters are
#: those of psycopg. ``may_shadow``: the job names no model and no other option that changes the result.
SHADOW_MODEL: Final = f"""
    SELECT shadow.name || '@' || shadow.version
    FROM model_shadows
    JOIN models AS shadow ON shadow.id = model_shadows.model_id
    WHERE model_shadows.stopped_at IS NULL
        AND %(may_shadow)s
        AND shadow.sha256 <> %(model_sha256)s::text
        AND {_POSITION_OF_CLAIM} < model_shadows.share
"""

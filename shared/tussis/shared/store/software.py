"""The software that made an analysis: one row for each combination, and a reference in each analysis.

Columns in ``analyses`` would repeat about 150 bytes in each of tens of millions of rows. The reference has four.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, and_, bindparam, select
from sqlalchemy.dialects.postgresql import insert

from tussis.shared.store.tables.models import software


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """The versions and the arithmetic on which the numbers of an analysis depend."""

    tussis_version: str
    onnxruntime_version: str
    torch_version: str
    """Of torch, which makes the images."""
    torchaudio_version: str
    """Of torchaudio, which resamples and filters."""
    decoder_library: str
    """Name and version of the decoder's library. Of a failure: of all libraries that the profile uses."""
    provider: str
    """Execution provider of onnxruntime: cpu, cuda or tensorrt."""
    graph: str
    """``original``, or the form of the rewritten graph."""
    processor: str
    """Processor that ran the model, with its instruction set; empty if unknown."""


#: The names of the fields, which are those of the columns.
NAMES = tuple(field.name for field in fields(Software))

_FIND = select(software.c.id).where(and_(*(software.c[name] == bindparam(name) for name in NAMES)))
_ADD = insert(software).on_conflict_do_nothing(constraint="software_key")


def software_id_of(connection: Connection, used: Software) -> int:
    """The id of the row with these values. Inserts the row if there is none."""
    values = asdict(used)
    found = connection.execute(_FIND, values).scalar_one_or_none()
    if found is None:
        # Another transaction may insert it at the same time. It then waits here, and the next statement sees the row.
        connection.execute(_ADD, values)
        found = connection.execute(_FIND, values).scalar_one()
    return int(found)

"""What all tables share: the metadata that has them, the names of constraints, the type of times."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sqlalchemy import MetaData
from sqlalchemy.dialects.postgresql import TIMESTAMP

#: Use it from :mod:`tussis.shared.store.schema`, which imports every module of tables.
metadata: Final = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)
Time: Final = TIMESTAMP(timezone=True)


def one_of(column: str, values: Iterable[StrEnum]) -> str:
    """The SQL that allows these values only."""
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"

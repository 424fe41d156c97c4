"""Measurements: ``tussis bench``. What each number means stands in ``docs/performance.md``.

Every module has ``measure(..., quick: bool, command: str) -> Report``; ``command`` is what was typed, for the report.
"""

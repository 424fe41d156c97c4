"""Benchmarks: ``tussis bench``. ``docs/performance.md`` explains each number.

Every benchmark has ``measure(..., quick: bool, command: str) -> Report``. ``command`` is the command line, for the
report.
"""

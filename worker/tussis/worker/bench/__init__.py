"""Benchmarks for operators: ``tussis bench``. ``docs/performance.md`` explains each number.

Every benchmark has ``measure(..., quick: bool, command: str) -> Measurements``. ``command`` is the command line that
repeats it. The measurements for developers are in ``benchmarks/`` of the checkout and use these modules.
"""

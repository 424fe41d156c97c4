"""Measurements for developers: ``python -m benchmarks``. They are not part of the installed product.

Every benchmark has ``measure(..., quick: bool, command: str) -> Measurements``, as those of ``tussis bench``.
``docs/performance.md`` explains each number.
"""

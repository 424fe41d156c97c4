"""The speed of one core, which tells apart two machines, or two hours of one machine, with the same name of the CPU."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

#: Rows and columns of the matrices. OpenBLAS, which computes NumPy's products, uses one thread for so few operations
#: (its ``interface/gemm.c``: up to 4 x 2^18 multiplications), and both matrices fit into the cache of a core.
SIZE: Final = 96
#: Seconds of the whole measurement, and the least number of intervals: on a busy machine one may take all the time.
_MEASURED_S: Final = 0.1
_INTERVALS: Final = 20
#: Products between two looks at the clock.
_PRODUCTS: Final = 50


def core_gflops() -> float:
    """The most float32 operations that one core has done in a short interval, in 10^9 a second.

    Each product of two matrices of N x N has 2 N^3 operations. The fastest interval counts, because other processes
    only slow it down.
    """
    generator = np.random.default_rng(1)
    left, right = generator.random((2, SIZE, SIZE), dtype=np.float32)
    product = np.empty_like(left)
    least_s = float("inf")
    ends = time.perf_counter() + _MEASURED_S
    done = 0
    while (began := time.perf_counter()) < ends or done < _INTERVALS:
        done += 1
        for _ in range(_PRODUCTS):
            np.matmul(left, right, out=product)
        least_s = min(least_s, time.perf_counter() - began)
    return 2 * SIZE**3 * _PRODUCTS / least_s / 1e9

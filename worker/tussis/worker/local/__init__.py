"""What the demo, ``tussis up`` and the benchmarks share: a worker and servers on one machine, and its screen."""

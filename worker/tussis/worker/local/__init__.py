"""Code shared by the demo, ``tussis up`` and the benchmarks: a worker beside the embedded servers, and the output."""

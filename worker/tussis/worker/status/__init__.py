"""The status of a worker's processes: for the other processes of the worker, the probes and Prometheus."""

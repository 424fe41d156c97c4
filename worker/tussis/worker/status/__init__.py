"""What the processes of a worker tell each other, the probes and Prometheus."""

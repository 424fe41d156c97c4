"""The device process: the one process of a worker that has the model on a GPU, and runs it for all children.

The worker's children (carriers) fetch, decode and cut on the CPU and send their segments over a Unix socket. The device
process makes the images, runs the recordings that wait together, and replies. ``docs/architecture.md`` has a drawing.
"""

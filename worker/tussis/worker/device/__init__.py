"""The device process: the one process of a worker that loads the model onto the GPU and runs it for all children.

The worker's children fetch, decode and cut on the CPU and send the segments over a Unix socket. The device
process makes the images, runs the waiting recordings together, and replies. ``docs/architecture.md`` has a drawing.
"""

"""The device process: the one process of a worker that holds the model on a GPU, and shares its runs out.

The worker's children (carriers) fetch, decode and cut on the CPU and hand their segments over a Unix socket; the device
process makes the images, runs what waits together, and answers. ``docs/architecture.md`` draws it.
"""

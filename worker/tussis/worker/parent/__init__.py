"""The worker's parent process: it consumes messages, and looks after the children that work on them."""

"""The worker's parent process. It receives messages and watches the children that analyse them."""

"""``tussis up``: the embedded servers and workers on one machine, in the foreground."""

"""``tussis demo``: the whole pipeline once over, on real servers, with recordings made here or given."""

"""The model as a worker serves it: its manifest, its contract, and the session that answers."""

"""Everything on one machine, in the foreground: ``tussis up``."""

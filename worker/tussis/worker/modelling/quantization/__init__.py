"""Smaller and faster versions of a model, held against it. Needs the extras ``cpu`` and ``models``."""

"""Smaller and faster versions of a model, held against it. Needs the extra ``cpu``."""

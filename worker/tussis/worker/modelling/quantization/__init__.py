"""Smaller and faster versions of a model, compared with it. Needs the extra ``cpu``."""

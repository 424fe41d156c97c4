"""Erasing recordings everywhere Tussis keeps anything."""

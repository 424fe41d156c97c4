"""Measures of scores against labels: numbers in, numbers out. No model, no store; files only in ``labels``."""

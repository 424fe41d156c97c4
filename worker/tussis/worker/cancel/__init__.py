"""Cancelling jobs that no attempt runs."""

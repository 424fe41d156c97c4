"""Comparing a bucket with the results, and enqueueing what is missing."""

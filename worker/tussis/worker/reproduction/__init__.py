"""Repeats a stored analysis on this machine and compares the two. Writes nothing to the store or the ledger."""

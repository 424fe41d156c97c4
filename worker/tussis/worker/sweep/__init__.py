"""Compares a bucket with ledger and results, and enqueues the objects that have neither."""

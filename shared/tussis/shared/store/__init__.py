"""The store: everything that Tussis keeps in PostgreSQL, and all of its SQL. ``docs/schema.md`` describes the schema.

Callers use :class:`tussis.shared.store.repository.Store` and the records in :mod:`tussis.shared.store.records`.
"""

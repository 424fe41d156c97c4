"""The store: all data of Tussis in PostgreSQL, and all SQL of Tussis. ``docs/schema.md`` describes the schema.

Callers use :class:`tussis.shared.store.repository.Store` and the records in :mod:`tussis.shared.store.records`.
"""

"""The tables and their comments, by theme. :mod:`tussis.shared.store.schema` has all of them."""

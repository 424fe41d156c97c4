"""Delivers outcomes of jobs by HTTP: `tussis notify`. ``docs/webhooks.md`` is its specification."""

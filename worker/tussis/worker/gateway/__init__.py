"""The HTTP gateway: ``tussis serve``. ``docs/http.md`` describes it."""

"""The views and their comments. The views are the interface for analysts; ``docs/schema.md`` lists their columns.

The modules of this package are by theme: answers, jobs, coughs, checks of the results, and drift. ``migrations/``
creates the same views; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from tussis.shared.store.views import answers, checks, coughs, drift, jobs
from tussis.shared.store.views.view import View

#: Name -> view. A view comes after the views that it reads.
VIEWS: Final[dict[str, View]] = {**answers.VIEWS, **jobs.VIEWS, **coughs.VIEWS, **checks.VIEWS, **drift.VIEWS}

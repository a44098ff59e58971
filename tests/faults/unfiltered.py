"""The site with its filters taken out, to see whether the database's wall stands alone: gunicorn tests.faults.unfiltered."""

from __future__ import annotations

from rmn.lib.rows import TenantQuerySet
from rmn.wsgi import application

TenantQuerySet.visible_to = lambda self, user: self  # type: ignore[method-assign]  # the mistake that is tried

__all__ = ["application"]

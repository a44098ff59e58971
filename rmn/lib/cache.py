"""A cache that is away is an empty one: what is kept there only saves work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from django.core.cache.backends.redis import RedisCache
from redis import RedisError

log = structlog.get_logger(__name__)


class ForgivingCache(RedisCache):
    """Redis, and nothing kept while it does not answer."""

    def _or(self, instead: Any, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except (RedisError, OSError) as error:
            log.warning("cache_away", error=type(error).__name__)
            return instead

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self._or(default, super().get, key, default, version=version)

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        self._or(None, super().set, key, value, *args, **kwargs)

    def add(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> bool:
        return bool(self._or(False, super().add, key, value, *args, **kwargs))

    def delete(self, key: Any, version: Any = None) -> bool:
        return bool(self._or(False, super().delete, key, version=version))

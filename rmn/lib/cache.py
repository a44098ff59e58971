"""A cache that is away is an empty one: what is kept there only saves work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.utils.functional import cached_property
from redis import RedisError

log = structlog.get_logger(__name__)


# An allowance as one number, when it will be whole again (GCRA): KEYS[1] its key, ARGV[1] what one request takes of it
# and ARGV[2] all of it, in seconds. Answers how long to wait; 0 or less, and the request is counted.
TAKE = """
local said = redis.call('TIME')
local now = said[1] + said[2] / 1000000
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + ARGV[1]
local wait = whole - now - ARGV[2]
if wait <= 0 then
  redis.call('SET', KEYS[1], string.format('%.6f', whole), 'PX', math.ceil((whole - now) * 1000))
end
return tostring(wait)
"""


def take(cache: Any, key: str, most: int, seconds: float) -> float:
    """Take one of ``most`` requests in ``seconds`` s from an allowance; how long to wait (s) if none is left, else 0.

    The allowance fills up evenly. In Redis this is one atomic message, so that no two processes spend the same;
    a cache that is away lets all through.
    """
    if most < 1:
        return seconds
    each = seconds / most
    if hasattr(cache, "take"):
        return max(cache.take(key, each, seconds), 0.0)
    now = time.time()
    whole = max(cache.get(key, 0.0), now) + each
    wait = whole - now - seconds
    if wait <= 1e-6:
        cache.set(key, whole, whole - now)
        return 0.0
    return float(wait)


class Kept(RedisCacheClient):
    """Asks through clients that are made once; Django makes one for each question."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: dict[int, Any] = {}

    def get_client(self, key: Any = None, *, write: bool = False) -> Any:
        which: int = self._get_connection_pool_index(write)  # type: ignore[attr-defined]  # as Django chooses a server
        if which not in self._clients:
            self._clients[which] = super().get_client(key, write=write)
        return self._clients[which]


class ForgivingCache(RedisCache):
    """Redis, and nothing kept while it does not answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._class = Kept

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

    def take(self, key: str, each: float, whole: float) -> float:
        """As ``take`` of this module does it; 0 where nobody answers."""
        name = self.make_and_validate_key(key)
        return float(
            self._or(
                0.0,
                lambda: self._take(keys=[name], args=[each, whole], client=self._cache.get_client(name, write=True)),
            )
        )

    @cached_property
    def _take(self) -> Any:
        return self._cache.get_client(write=True).register_script(TAKE)

"""Who asked what, and how much may still be asked in this minute."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from ops_pipeline.domain.session import MINUTE, floor_minute
from ops_pipeline.sandbox.live import Now

_KEPT = 10_000
_SECRET_WORDS = ("key", "secret", "password", "authorization")


@dataclass
class RequestLog:
    """The newest ten thousand requests, newest last; what names a secret is not kept."""

    entries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(
        self,
        at: datetime,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]],
        status: int,
        size: int,
    ) -> None:
        """Note a request; status 0 is one that got no answer."""
        kept = [(name, value) for name, value in query if not _is_secret(name)]
        entry = {"time": at.isoformat(), "method": method, "path": path}
        self.entries.append({**entry, "query": urlencode(kept), "status": status, "bytes": size})


@dataclass(frozen=True)
class Budget:
    """What is left of a minute's requests."""

    limit: int
    remaining: int
    resets_at: datetime

    @property
    def is_exceeded(self) -> bool:
        """Whether this request is one too many."""
        return self.remaining < 0

    @property
    def headers(self) -> dict[str, str]:
        """The budget as the vendor tells it; the reset is in seconds since 1970."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.remaining)),
            "X-RateLimit-Reset": str(int(self.resets_at.timestamp())),
        }


class RateLimit:
    """So many requests a minute for each part of the vendor's hosts."""

    def __init__(self, per_minute: int, now: Now) -> None:
        self._per_minute, self._now = per_minute, now
        self._minute = floor_minute(now())
        self._used: dict[str, int] = {}

    def take(self, part: str) -> Budget:
        """Count one request, and tell what is left."""
        if (minute := floor_minute(self._now())) != self._minute:
            self._minute, self._used = minute, {}
        self._used[part] = self._used.get(part, 0) + 1
        left = self._per_minute - self._used[part]
        return Budget(self._per_minute, left, self._minute + MINUTE)


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)

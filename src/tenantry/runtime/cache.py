"""A cache whose keys carry the tenant, so that two tenants never meet in it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from threading import Lock
from typing import Any, Final

from tenantry.context import current_environment

PER_TENANT: Final = 1_000
"""Entries one tenant may have; its least recently used one makes room."""

OVERALL: Final = 100_000
"""Entries of all tenants; the tenant that has not used its own for longest makes room."""

SECONDS: Final = 300.0
"""How long an entry holds unless told otherwise."""

Bucket = OrderedDict[tuple[str, str], tuple[float, Any]]


class TenantCache:
    """Values of the current tenant, in the memory of this process. Forgotten when the tenant changes."""

    def __init__(
        self,
        per_tenant: int = PER_TENANT,
        overall: int = OVERALL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_tenant = per_tenant
        self._overall = overall
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._count = 0
        self._lock = Lock()

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default where there is none or it is too old."""
        environment = current_environment()
        with self._lock:
            bucket = self._buckets.get(environment.tenant.id)
            entry = bucket.get((environment.name, key)) if bucket else None
            if bucket is None or entry is None:
                return default
            if entry[0] <= self._clock():
                self._remove(bucket, (environment.name, key))
                return default
            bucket.move_to_end((environment.name, key))
            self._buckets.move_to_end(environment.tenant.id)
            return entry[1]

    def set(self, key: str, value: Any, seconds: float = SECONDS) -> None:
        """Keep a value for so many seconds, or until there is no room for it."""
        environment = current_environment()
        with self._lock:
            bucket = self._buckets.setdefault(environment.tenant.id, OrderedDict())
            self._buckets.move_to_end(environment.tenant.id)
            self._remove(bucket, (environment.name, key))
            bucket[environment.name, key] = (self._clock() + seconds, value)
            self._count += 1
            self._make_room(bucket)

    def delete(self, key: str) -> None:
        """Forget one value."""
        environment = current_environment()
        with self._lock:
            self._remove(self._buckets.get(environment.tenant.id, OrderedDict()), (environment.name, key))

    def clear(self) -> None:
        """Forget every value of the current tenant."""
        self.forget((current_environment().tenant.id,))

    def items(self) -> list[tuple[str, Any]]:
        """Keys and values of the current tenant, by key; looking at them keeps none of them longer."""
        environment = current_environment()
        with self._lock:
            bucket, now = self._buckets.get(environment.tenant.id, OrderedDict()), self._clock()
            kept = [
                (key, value)
                for (name, key), (until, value) in bucket.items()
                if name == environment.name and until > now
            ]
        return sorted(kept, key=lambda entry: entry[0])

    def forget(self, tenants: Collection[str] | None = None) -> None:
        """Forget every value of these tenants, by id; of all where None."""
        with self._lock:
            for tenant in list(self._buckets) if tenants is None else tenants:
                self._count -= len(self._buckets.pop(tenant, ()))

    def _remove(self, bucket: Bucket, key: tuple[str, str]) -> None:
        if bucket.pop(key, None) is not None:
            self._count -= 1

    def _make_room(self, bucket: Bucket) -> None:
        while len(bucket) > self._per_tenant:
            bucket.popitem(last=False)
            self._count -= 1
        while self._count > self._overall:
            tenant, oldest = next(iter(self._buckets.items()))
            if oldest:
                oldest.popitem(last=False)
                self._count -= 1
            if not oldest:
                del self._buckets[tenant]


def cache_key(key: str) -> str:
    """A key of the current tenant for a cache that others share, such as Redis: "<tenant id>:<environment>:<key>"."""
    environment = current_environment()
    return f"{environment.tenant.id}:{environment.name}:{key}"

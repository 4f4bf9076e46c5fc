"""Sees which keys tenants use in Django's caches while tests run: one that two of them use has no tenant in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tenantry.context import _current
from tenantry.testing.leaks import Leak

MODULE: Final = "django.core.cache.backends.base"

COMMON: Final = "platform"
"""The cache, by its name in Django's CACHES, that is meant for all tenants."""


class Caches:
    """The keys of one test in each cache, with the tenant that used one first."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._watched = False
        self._users: dict[tuple[str, str], str] = {}  # by cache and key: the slug
        self._found: dict[tuple[str, str], Leak] = {}

    def begin(self) -> None:
        """Begin a test; Django may have been imported meanwhile."""
        self._users, self._found = {}, {}
        if not self._watched and MODULE in sys.modules:
            self._watched = True
            self._watch(sys.modules[MODULE].BaseCache)

    def leaks(self) -> Iterator[Leak]:
        """What was found since the last look."""
        found, self._found = self._found, {}
        yield from found.values()

    def _watch(self, backend: Any) -> None:
        from django.core.cache import caches

        make, use = backend.make_and_validate_key, self._use

        def watched(cache: Any, key: Any, version: Any = None) -> Any:
            made = make(cache, key, version=version)
            use(next((alias for alias in caches if caches[alias] is cache), "?"), str(made))
            return made

        self._patch.setattr(backend, "make_and_validate_key", watched)

    def _use(self, cache: str, key: str) -> None:
        environment = _current.get()
        if environment is None or cache == COMMON:
            return
        slug = environment.tenant.slug
        first = self._users.setdefault((cache, key), slug)
        if first != slug:
            what = (
                f"'{key}' is a key of {first} as well: it needs `KEY_FUNCTION`, tenantry.integrations.django.tenant_key"
            )
            self._found[cache, key] = Leak(f"{slug} / cache '{cache}'", what)

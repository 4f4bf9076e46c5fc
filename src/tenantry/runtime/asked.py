"""A request to one of the middleware's own pages, the same from ASGI and from WSGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from tenantry.model import Environment
from tenantry.refusals import BodyTooLarge, BodyUnreadable, MediaUnknown
from tenantry.runtime.pages import Answer

OWN: Final = "/.tenantry/"
"""Below it lie the middleware's own pages, at every tenant."""

BODY: Final = 65_536
"""The longest body of a request to one of them, in bytes."""

FIELDS: Final = 100
"""The most fields of a form."""

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that ask for no change (RFC 9110 section 9.2.1)."""

FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page has to know of a request."""

    method: str
    path: str  # within the tenant
    root: str  # what stands before it
    headers: Mapping[str, str]  # by name in small letters; of several, joined as RFC 9110 section 5.3 says
    query: str = ""
    scheme: str = "http"  # as a trusted proxy says, where one does
    address: str = ""  # of the client, likewise
    body: bytes = b""

    @property
    def site(self) -> str:
        """Where a browser says that the request comes from (Fetch Metadata)."""
        return self.headers.get("sec-fetch-site", "")

    @property
    def host(self) -> str:
        """The Host header: one that leads to this tenant, as it was found by it."""
        return self.headers.get("host", "")

    @property
    def is_foreign(self) -> bool:
        """Whether a browser says that another site sent this (Fetch Metadata; Origin, where a browser has none)."""
        if self.site:
            return self.site not in ("same-origin", "none")
        origin = self.headers.get("origin")
        return origin is not None and origin.partition("://")[2] != self.host

    @property
    def cookies(self) -> Mapping[str, str]:
        """Its cookies (RFC 6265 section 4.2)."""
        pairs = (part.strip().partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name: value.strip('"') for name, equals, value in pairs if equals}  # others' odd ones void none of ours

    @property
    def arguments(self) -> Mapping[str, str]:
        """What its query says; of a name that comes twice, the last."""
        return _pairs(self.query.encode("latin-1", "replace"))

    @property
    def form(self) -> Mapping[str, str]:
        """The fields of the form it sends. Raises `MediaUnknown` or `BodyUnreadable`."""
        kind = self.headers.get("content-type", FORM).partition(";")[0].strip().lower()
        if kind != FORM:
            raise MediaUnknown(given=kind[:100] or "none", remedy="Send it as a form.")
        return _pairs(self.body)

    def with_body(self, body: bytes) -> Asked:
        """The same with its body. Raises `BodyTooLarge`."""
        if len(body) > BODY:
            raise BodyTooLarge(limit=BODY)
        return replace(self, body=body)


Handler: TypeAlias = Callable[[Environment, Asked], Awaitable[Answer]]
"""Answers a page; called within the tenant's context."""


def client(address: str, forwarded: str, trusted: tuple[str, ...]) -> str:
    """The address of the client: what a trusted proxy names last, else who is connected."""
    if address in trusted and forwarded:
        return forwarded.rpartition(",")[2].strip()[:64]
    return address


def _pairs(text: bytes) -> dict[str, str]:
    try:
        found = parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=FIELDS, errors="strict")
    except ValueError as error:  # no UTF-8, or too many
        raise BodyUnreadable from error
    return dict(found)

"""Asks providers: by https, at public addresses, for so long, and for so much. Whoever sets a provider up reaches

nothing inside the platform's own network by it (SSRF): names are resolved first, each address is looked at, and the
connection goes to the very address that was looked at. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tenantry.sso_refusals import ProviderUnreachable

if TYPE_CHECKING:
    import httpx

SECONDS: Final = 10.0
"""How long a provider may take for one answer."""

MOST: Final = 1_000_000
"""Bytes of an answer that are read."""

KEPT: Final = (60.0, 600.0, 86400.0)
"""Seconds for which an answer is kept: at least, where it does not say, and at most."""

JSON: Final = "application/json"

_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Answered:
    """What a provider answered."""

    status: int
    body: bytes
    until: float  # as time.monotonic() tells it: how long the answer may be kept

    @property
    def content(self) -> Any:
        """Of JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Fetch:
    """Asks. `inside` lets it ask this very machine as well, by http too: for development."""

    def __init__(self, inside: bool = False) -> None:
        self._inside = inside

    async def get(self, url: str, bearer: str = "", accept: str = JSON) -> Answered:
        """What stands at an address. Raises `ProviderUnreachable`."""
        return await self._ask(
            "GET", url, {"accept": accept, **({"authorization": f"Bearer {bearer}"} if bearer else {})}
        )

    async def post(self, url: str, form: Mapping[str, str], auth: httpx.BasicAuth) -> Answered:
        """The answer to a form. Raises `ProviderUnreachable`."""
        return await self._ask("POST", url, {}, data=dict(form), auth=auth)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], **more: Any) -> Answered:
        import httpx  # few processes ask

        try:
            async with asyncio.timeout(SECONDS):
                address, named = await self._looked_up(url)
                known = {"accept": JSON, "accept-encoding": "identity", **named, **headers}
                sni = {"sni_hostname": urlsplit(url).hostname}
                async with httpx.AsyncClient(trust_env=False, timeout=SECONDS, follow_redirects=False) as client:
                    auth = more.pop("auth", None)
                    request = client.build_request(method, address, headers=known, extensions=sni, **more)
                    return await _read(await client.send(request, auth=auth, stream=True), url)
        except TimeoutError as error:
            raise ProviderUnreachable(url=url, reason=f"it takes longer than {SECONDS:.0f} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
            raise ProviderUnreachable(url=url, reason=f"{type(error).__name__}: {error}"[:300]) from error

    async def _looked_up(self, url: str) -> tuple[str, dict[str, str]]:
        """The address to connect to, in place of the name; and the name, as a header."""
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
            raise ProviderUnreachable(url=url[:200], reason="it is no https address")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        found = [
            ipaddress.ip_address(row[4][0])
            for row in await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        ]
        at_home = self._inside and all(one.is_loopback for one in found)
        if parts.scheme == "http" and not at_home:
            raise ProviderUnreachable(url=url, reason="it is no https address")
        if not at_home and not all(_public(one) for one in found):
            raise ProviderUnreachable(url=url, reason=f"{parts.hostname} is no public address")
        first = found[0]
        host = f"[{first}]" if first.version == 6 else str(first)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        return f"{parts.scheme}://{host}:{port}{path}", {"host": parts.netloc}


def _public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is somewhere in the internet; what wraps an IPv4 address is as that is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _public(inner)
    return address.is_global and not address.is_multicast


async def _read(response: httpx.Response, url: str) -> Answered:
    body = bytearray()
    try:
        async for part in response.aiter_raw():
            body += part
            if len(body) > MOST:
                raise ProviderUnreachable(url=url, reason=f"it answers more than {MOST:,} bytes")
    finally:
        await response.aclose()
    if 300 <= response.status_code < 400:
        raise ProviderUnreachable(url=url, reason=f"it redirects ({response.status_code})")
    return Answered(
        response.status_code, bytes(body), time.monotonic() + _kept(response.headers.get("cache-control", ""))
    )


def _kept(control: str) -> float:
    """For how many seconds an answer may be kept (RFC 9111 section 5.2.2)."""
    least, usual, most = KEPT
    if "no-store" in control.lower() or "no-cache" in control.lower():
        return least
    found = _MAX_AGE.search(control.lower())
    return min(max(least, float(found[1])), most) if found else usual

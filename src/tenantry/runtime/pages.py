"""Answers that the middleware gives itself: refusals, redirects and the health of the process."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from tenantry import paths
from tenantry.errors import PathEscape, TenantNotServed, TenantryError
from tenantry.model import Status, Tenant


class Answer(NamedTuple):
    """A whole HTTP response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


RETRY_SECONDS: Final = 2
"""When a client may try again that was refused for a reason that passes."""

NOBODY: Final = "user.unknown"
"""The code of the refusal of those who are not signed in: they sent nothing that is wrong."""

_AWAY: Final = ("Just a moment", "A part of the service does not answer. Try again in a few seconds.")
_BUSY: Final = ("Just a moment", "There is much to do here at the moment. Try again in a few seconds.")
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "host.invalid": ("This address is not valid", "The request does not name one proper host name."),
    "host.unknown": ("Nothing is here", "There is no site at this address. Check its spelling."),
    "tenant.not_found": ("Nothing is here", "There is no site at this address. Check its spelling."),
    NOBODY: ("Please sign in", "This is for people who are signed in here."),
    "user.forbidden": ("This is not for you", "Your role may not do this. Ask an admin."),
    "session.foreign": ("Please sign in again", "The session that came with the request is not of this site."),
    "token.invalid": ("Please sign in again", "The token that came with the request is not valid here."),
    "server.unavailable": _AWAY,
    "server.busy": _BUSY,
    "databases.busy": _BUSY,
    "support.link": (
        "This link opens nothing",
        "It was used before, has run out, or leads to another tenant. Open support access once more.",
    ),
    "support.read_only": ("This is not changed", "Support access looks only. Go back to the page before."),
    "registry.unavailable": ("Just a moment", "The service is starting. Try again in a few seconds."),
}
_OTHER: Final = ("This is not possible at the moment", "Try again later.")

_CLOSED: Final[Mapping[Status, tuple[str, str]]] = {
    Status.CREATING: ("{name} is being set up", "It opens in a moment."),
    Status.SUSPENDED: ("{name} is closed at the moment", "Its data is kept. Its owner can have it opened again."),
    Status.DESTROYING: ("{name} is closed", "It is being removed."),
}

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex"><link rel="icon" href="data:,"><title>{title}</title><style>
:root{{color-scheme:light dark;--back:#f6f5f2;--card:#fff;--text:#1d1f24;--soft:#636873;--line:#e3e1db;--mark:#3d5af1}}
@media(prefers-color-scheme:dark){{:root{{--back:#14161a;--card:#1c1f25;--text:#eceef2;--soft:#9aa1ad;--line:#2b2f37;
--mark:#8ea2ff}}}}
*{{box-sizing:border-box}}body{{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;
background:var(--back);color:var(--text);font:1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}}
main{{max-width:30rem;width:100%;padding:2.5rem;background:var(--card);border:1px solid var(--line);
border-radius:1rem;border-top:.25rem solid var(--mark)}}
h1{{margin:0 0 .5rem;font-size:1.5rem;line-height:1.25;text-wrap:balance;overflow-wrap:anywhere}}
p{{margin:0;color:var(--soft)}}small{{display:block;margin-top:2rem;color:var(--soft);letter-spacing:.03em}}
button{{margin-top:1.5rem;padding:.6rem 1.4rem;font:inherit;color:var(--card);background:var(--mark);border:0;
border-radius:.5rem;cursor:pointer}}
.on{{margin-top:1.5rem}}a{{color:var(--mark)}}
</style></head><body><main><h1>{title}</h1><p>{text}</p>{more}</main></body></html>
"""

_CODE: Final = "<small>{status} · {code}</small>"
_BUTTON: Final = '<form method="post" action="{where}"><button>{label}</button></form>'

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_PRIVATE: Final = [
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
]

OWN_PAGE: Final = "suspended.html"
OWN_PAGE_BYTES: Final = 262_144


def refusal(error: TenantryError, accept: str = "", data: Path | None = None) -> Answer:
    """A page that says why a request is refused, or problem+json (RFC 9457) where the client prefers JSON.

    It tells the public nothing of the platform's inside: the operator's remedy stays out. A suspended tenant that has a
    `suspended.html` in its environment's home below `data` shows that.
    """
    title, text = _words(error)
    headers = [("cache-control", "no-store"), ("vary", "Accept"), ("x-content-type-options", "nosniff")]
    if error.status == 503:
        headers.append(("retry-after", str(max(1, math.ceil(error.details.get("retry_after", RETRY_SECONDS))))))
    if error.status == 401:
        headers.append(("www-authenticate", "Bearer" if error.code == NOBODY else 'Bearer error="invalid_token"'))
    if where := error.details.get("sign_in"):
        return _answer(303, "text/plain", b"", [*headers, ("location", where)])
    if prefers_json(accept):
        problem = {"type": f"urn:tenantry:{error.code}", "title": title, "status": error.status, "detail": text}
        body = json.dumps(problem | {"code": error.code}, ensure_ascii=False).encode()
        return _answer(error.status, "application/problem+json", body, headers)
    code = _CODE.format(status=error.status, code=escape(error.code))
    page = _PAGE.format(title=escape(title), text=escape(text), more=code)
    headers.append(("content-security-policy", _POLICY))
    return _answer(error.status, "text/html; charset=utf-8", _own_page(error, data) or page.encode(), headers)


def _own_page(error: TenantryError, data: Path | None) -> bytes | None:
    """A suspended tenant's own page, as a `rendered` resource with the target "suspended.html" makes it."""
    environment = error.details.get("environment")
    if data is None or environment is None or environment.tenant.status is not Status.SUSPENDED:
        return None
    try:
        with paths.open_beneath(data / environment.home, OWN_PAGE) as file:
            page = file.read(OWN_PAGE_BYTES + 1)
    except (OSError, PathEscape):
        return None
    return page if len(page) <= OWN_PAGE_BYTES else None


def _words(error: TenantryError) -> tuple[str, str]:
    tenant = error.details.get("tenant")
    if isinstance(error, TenantNotServed) and isinstance(tenant, Tenant) and tenant.status in _CLOSED:
        title, text = _CLOSED[tenant.status]
        return title.format(name=tenant.name), text
    return _TEXTS.get(error.code, _OTHER)


def redirect(target: str) -> Answer:
    """A permanent redirect that keeps the method; kept for minutes only, as the old name may find a new owner."""
    return _answer(308, "text/plain", b"", [("location", target), ("cache-control", "private, max-age=300")])


def see_other(target: str, cookie: str) -> Answer:
    """On to another page by GET, with a cookie."""
    headers = [("location", target), ("set-cookie", cookie), ("cache-control", "no-store")]
    return _answer(303, "text/plain", b"", headers)


def ask(title: str, text: str, where: str, label: str) -> Answer:
    """A page with one button, which posts to `where`."""
    button = _BUTTON.format(where=escape(where), label=escape(label))
    policy = _POLICY.replace("form-action 'none'", "form-action 'self'")
    headers = [("content-security-policy", policy), *_PRIVATE]
    body = _PAGE.format(title=escape(title), text=escape(text), more=button).encode()
    return _answer(200, "text/html; charset=utf-8", body, headers)


def tell(title: str, text: str, cookie: str) -> Answer:
    """A page that tells something, with a cookie."""
    headers = [("content-security-policy", _POLICY), ("set-cookie", cookie), *_PRIVATE]
    body = _PAGE.format(title=escape(title), text=escape(text), more="").encode()
    return _answer(200, "text/html; charset=utf-8", body, headers)


def told(status: int, title: str, text: str, where: str, label: str) -> Answer:
    """A page that tells something, with a link to go on."""
    link = f'<p class="on"><a href="{escape(where)}">{escape(label)}</a></p>'
    body = _PAGE.format(title=escape(title), text=escape(text), more=link).encode()
    return _answer(status, "text/html; charset=utf-8", body, [("content-security-policy", _POLICY), *_PRIVATE])


def style(text: str) -> Answer:
    """A style sheet."""
    headers = [("cache-control", "public, max-age=3600"), ("x-content-type-options", "nosniff")]
    return _answer(200, "text/css; charset=utf-8", text.encode(), headers)


def health(facts: Mapping[str, Any]) -> Answer:
    """The health of the process, for load balancers: 503 only while nothing is known of any tenant."""
    status = 503 if facts["status"] == "starting" else 200
    return _answer(status, "application/json", json.dumps(facts).encode(), [("cache-control", "no-store")])


def _answer(status: int, kind: str, body: bytes, headers: list[tuple[str, str]]) -> Answer:
    return Answer(status, [("content-type", kind), ("content-length", str(len(body))), *headers], body)


_WEIGHT: Final = re.compile(r";\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|\Z)", re.IGNORECASE)


def prefers_json(accept: str) -> bool:
    """Whether an Accept header (RFC 9110 section 12.5.1) weighs JSON higher than HTML."""
    weights = {"json": 0.0, "html": 0.0}
    for item in accept[:1000].lower().split(","):
        name = item.partition(";")[0].strip()
        match = _WEIGHT.search(item)
        weight = float(match[1]) if match else 1.0
        if name == "application/json" or name.endswith("+json"):
            weights["json"] = max(weights["json"], weight)
        elif name in ("text/html", "application/xhtml+xml"):
            weights["html"] = max(weights["html"], weight)
    return weights["json"] > weights["html"]

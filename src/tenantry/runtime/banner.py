"""The banner of support access: put into every whole HTML answer by the middleware, so no application forgets it.

It stands at the end of the document, where the HTML standard puts what follows into the body, and a style sheet of this
host fixes it to the window: so no page has to be taken apart, and a policy of `style-src 'self'` lets it be.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from tenantry.model import SupportAccess
from tenantry.runtime.pages import Answer

HERE: Final = "/.tenantry/support"
"""Below it lie the middleware's own pages of support access, at every tenant."""

CSS: Final = """
.tenantry-support, .tenantry-support * { all: revert; box-sizing: border-box; }
.tenantry-support { position: fixed; inset: auto 0 0 0; z-index: 2147483647; display: flex; flex-wrap: wrap;
  gap: .4rem 1rem; align-items: center; justify-content: center; margin: 0; padding: .55rem 1rem; background: #7a1f2b;
  color: #fff; border-top: 3px solid #ffb347;
  font: 500 .95rem/1.35 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.tenantry-support p { margin: 0; overflow-wrap: anywhere; max-width: 75rem; }
.tenantry-support form { margin: 0; }
.tenantry-support button { font: inherit; color: #7a1f2b; background: #fff; border: 0; border-radius: .35rem;
  padding: .3rem .8rem; cursor: pointer; }
.tenantry-support button:focus-visible { outline: 3px solid #ffb347; outline-offset: 2px; }
body:has(> .tenantry-support) { padding-bottom: 6rem !important; }
"""

CONDITIONS: Final = frozenset({"accept-encoding", "if-none-match", "if-modified-since", "if-range", "range"})
"""Headers by which an answer comes packed, in part, or out of a cache: the banner fits in none of these."""

DOCUMENTS: Final = frozenset({"document", "iframe", "frame"})
"""What a browser asks for where it shows a page (Fetch Metadata, Sec-Fetch-Dest)."""


def banner(access: SupportAccess, tenant: str, root: str, *, own: bool) -> bytes:
    """The banner: for whoever looks in (`own`), with a button that ends it, and for the tenant's people."""
    until = f"{access.until:%H:%M} UTC"
    if own:
        may = "You may change things" if access.writes else "You look only"
        told = (
            f"<strong>Support access to {escape(tenant)}</strong> until {until}. {may}. Reason: {escape(access.reason)}"
        )
        end = f'<form method="post" action="{escape(root)}{HERE}/end"><button>End it</button></form>'
    else:
        may = "and may change things" if access.writes else "and changes nothing"
        told = f"<strong>{escape(access.who)}</strong> of the platform's support looks in here until {until} {may}."
        told, end = f"{told} Reason: {escape(access.reason)}", ""
    sheet = f'<link rel="stylesheet" href="{escape(root)}{HERE}/banner.css">'
    return (
        f'\n{sheet}<section class="tenantry-support" aria-label="Support access"><p>{told}</p>{end}</section>'.encode()
    )


def is_page(headers: Iterable[tuple[str, str]], status: int, method: str) -> bool:
    """Whether an answer of these headers may be a page."""
    kind = next((value for name, value in headers if name.lower() == "content-type"), "")
    return kind.lower().startswith("text/html") and method != "HEAD" and status not in (204, 205, 304)


def headers_of_page(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of a page with a banner: it is longer, and nobody keeps it for later."""
    gone = {"content-length", "etag", "last-modified", "cache-control", "expires", "accept-ranges"}
    return [*(pair for pair in headers if pair[0].lower() not in gone), ("cache-control", "no-store")]


def bannered(answer: Answer, shown: bytes | None) -> Answer:
    """A page of our own with a banner, where one is shown."""
    if shown is None or not is_page(answer.headers, answer.status, "GET"):
        return answer
    body = answer.body + shown
    return Answer(answer.status, [*headers_of_page(answer.headers), ("content-length", str(len(body)))], body)


class Page:
    """Whether what begins so is a whole page, or a part of one that a script asked for."""

    def __init__(self, destination: str) -> None:
        self._whole: bool | None = destination in DOCUMENTS if destination else None

    def look(self, part: bytes) -> None:
        """See what the answer begins with."""
        beginning = part.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].lower()
        if self._whole is None and beginning:
            self._whole = beginning.startswith((b"<!doctype", b"<html", b"<!--"))

    @property
    def is_whole(self) -> bool:
        """Whether it is one."""
        return bool(self._whole)

"""Letters as they look, with made-up content: for the portal, and for `tenantry mail preview`."""

from __future__ import annotations

import re
from functools import partial
from html import escape
from typing import Final
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from tenantry.config import Config
from tenantry.credentials import Role
from tenantry.errors import TenantryError
from tenantry.mail.letter import SAMPLES, Letter, as_html, as_text, sample
from tenantry.mail.look import Look, of_platform, of_tenant
from tenantry.platform import Platform
from tenantry.registry.database import now
from tenantry.runtime.accounts import User
from tenantry.runtime.asked import OWN
from tenantry.runtime.entrance.letters import letter
from tenantry.runtime.proofs import HOLD

SHOWN: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
"""What a letter may do that is shown: it has its own style, and nothing else."""

LOOKS: Final = 50
"""Tenants whose looks are listed."""

PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Letters</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: left; padding: .4rem .8rem .4rem 0 }}</style>
<h1>Letters</h1><table><tr><th>letter</th><th>look</th><th></th></tr>{rows}</table></html>
"""


def shown_html(letter: Letter, look: Look) -> str:
    """A letter's HTML as a page: its links lead nowhere, its picture stands in it."""
    return re.sub(r' href="[^"]*"', "", as_html(letter, look, look.logo.data if look.logo else ""))


async def serve(platform: Platform, port: int) -> None:
    """Show letters on this machine until told to stop."""
    await uvicorn.Server(uvicorn.Config(gallery(platform), host="127.0.0.1", port=port, log_level="warning")).serve()


def gallery(platform: Platform) -> Starlette:
    """Every kind of letter in every look."""

    async def index(_: Request) -> Response:
        slugs = ["", *(row.slug for row in await platform.tenants.list(limit=LOOKS))]
        rows = "".join(_row(kind, slug) for kind in sorted(SAMPLES) for slug in slugs)
        return HTMLResponse(PAGE.format(rows=rows))

    async def html(request: Request) -> Response:
        return HTMLResponse(shown_html(*await _found(platform, request)), headers={"content-security-policy": SHOWN})

    async def text(request: Request) -> Response:
        return PlainTextResponse(as_text(*await _found(platform, request)))

    async def refused(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 404)

    routes = [Route("/", index), Route("/html", html), Route("/text", text)]
    return Starlette(routes=routes, exception_handlers={TenantryError: refused})


def _row(kind: str, slug: str) -> str:
    query = escape(urlencode({"kind": kind, "tenant": slug}))
    links = f'<a href="/html?{query}">HTML</a> <a href="/text?{query}">text</a>'
    return f"<tr><td>{escape(kind)}</td><td>{escape(slug) or 'the platform’s'}</td><td>{links}</td></tr>"


async def _found(platform: Platform, request: Request) -> tuple[Letter, Look]:
    kind, slug = request.query_params.get("kind", ""), request.query_params.get("tenant", "")
    letter = SAMPLES.get(kind, SAMPLES[min(SAMPLES)])(platform.config)
    if not slug:
        return letter, of_platform(platform.config)
    return letter, of_tenant(platform.config, (await platform.tenants.show(slug)).tenant)


def _to_a_user(config: Config, purpose: str) -> Letter:
    user = User("", "ana@example.com", "Ana", Role.USER, True, 0, now())
    where = f"{config.address('made-up', None)}{OWN}link/made-up"
    note = letter("Acme & Söhne", user, purpose, where, user.login)
    return Letter(note.subject, note.paragraphs, note.link, note.action, note.kind, until=note.until)


for _purpose in HOLD:
    sample(f"user.{_purpose}")(partial(_to_a_user, purpose=_purpose))

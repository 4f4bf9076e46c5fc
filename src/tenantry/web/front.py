"""The page at the platform's bare domain, for platforms that bring none of their own."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from tenantry.config import Config

STATIC: Final = Path(__file__).with_name("static")
PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="/favicon.ico" type="image/svg+xml">
<title>{name}</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto; padding: 0 1.5rem }}
h1 {{ font-size: 2.2rem; line-height: 1.2; margin: 0 0 .5rem }}
code {{ background: color-mix(in srgb, currentColor 10%, transparent); padding: .1em .35em; border-radius: .3em }}
</style>
<h1>{name}</h1>
<p>Each tenant has an address of its own: <code>{address}</code>.</p>
</html>
"""


def front(config: Config) -> Starlette:
    """A small application with one page that names the platform and tells how tenants are reached."""
    address = f"name.{config.platform.domain}" if "host" in config.routing.by else config.routing.path
    page = PAGE.format(name=escape(config.platform.name), address=escape(address.replace("{slug}", "name")))

    async def index(_: Request) -> HTMLResponse:
        return HTMLResponse(page)

    async def icon(_: Request) -> FileResponse:
        return FileResponse(STATIC / "icon.svg", headers={"cache-control": "public, max-age=3600"})

    return Starlette(routes=[Route("/", index), Route("/favicon.ico", icon)])

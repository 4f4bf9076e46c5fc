"""The application: each tenant is a country with one page, which lists its subdivisions and which its editor writes."""

from __future__ import annotations

from html import escape
from typing import Any

from sqlalchemy import text
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tenantry import connected, current_tenant, require, tenant_session, tenant_values
from tenantry.errors import TenantryError
from tenantry.integrations.fastapi import refusal

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 8vh auto; padding: 0 1.5rem }}</style>
<h1>{flag} {title}</h1>
<p>{text}</p>
<ul>
{subdivisions}
</ul>
</html>
"""


async def show(_: Request) -> Response:
    """The country's page, out of its own database."""
    async with tenant_session() as session:
        page = (await session.execute(text("SELECT title, text FROM page"))).first()
        rows = (await session.execute(text("SELECT code, name, kind FROM subdivision ORDER BY code"))).all()
    items = [f"<li>{escape(row.name)} <small>{escape(row.kind)}, {escape(row.code)}</small>" for row in rows]
    return HTMLResponse(
        PAGE.format(
            flag=escape(str(tenant_values()["flag"])),
            title=escape(page.title if page else current_tenant().name),
            text=escape(page.text if page else "Nobody has written here yet."),
            subdivisions="\n".join(items),
        )
    )


async def write(request: Request) -> Response:
    """Write the page anew: `{"title": …, "text": …, "subdivisions": [[code, name, kind], …]}`, by a signed-in user."""
    require()
    sent = await fields(request, "title", "text", "subdivisions")
    async with tenant_session() as session:
        await session.execute(
            text("INSERT OR REPLACE INTO page (id, title, text) VALUES (1, :title, :text)"),
            {"title": sent["title"], "text": sent["text"]},
        )
        await session.execute(text("DELETE FROM subdivision"))
        if rows := [{"code": code, "name": name, "kind": kind} for code, name, kind in sent["subdivisions"]]:
            await session.execute(text("INSERT INTO subdivision (code, name, kind) VALUES (:code, :name, :kind)"), rows)
        await session.commit()
    return Response(status_code=204)


async def sign_in(request: Request) -> Response:
    """Take `{"login": …, "password": …}` and give a session cookie, which is good at this tenant alone."""
    sent = await fields(request, "login", "password")
    runtime = connected()
    user = await runtime.accounts.authenticate(sent["login"], sent["password"])
    return Response(status_code=204, headers={"set-cookie": await runtime.enter(user)})


async def fields(request: Request, *names: str) -> dict[str, Any]:
    """The JSON a request brings, which must hold these names. Browsers send it across sites only where allowed."""
    if request.headers.get("content-type") != "application/json":
        raise HTTPException(415, "Send application/json.")
    try:
        sent = await request.json()
    except ValueError:
        sent = None
    if not isinstance(sent, dict) or not set(names) <= sent.keys():
        raise HTTPException(422, f"Send an object with {', '.join(names)}.")
    return sent


app = Starlette(
    routes=[
        Route("/", show, methods=["GET"]),
        Route("/", write, methods=["PUT"]),
        Route("/sign-in", sign_in, methods=["POST"]),
    ],
    exception_handlers={TenantryError: refusal},  # foreign session, wrong password, schema behind, …
)

"""The how-tos for FastAPI, Flask and Django: their code, taken out of the pages, serves two tenants."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

import tenantry
from tenantry.context import tenant_context
from tenantry.credentials import Role

PAGES = Path(__file__).parents[3] / "docs" / "howto"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

JSON = {"accept": "application/json"}


@pytest.fixture
def run(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs all code of a page as one module, connected to the world's platform."""
    made = world.runtime()
    monkeypatch.setattr(tenantry, "connect", lambda path: made.install())

    def page(name: str) -> ModuleType:
        module = ModuleType(f"howto_{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        code = "\n\n".join(BLOCK.findall((PAGES / f"{name}.md").read_text("utf-8")))
        exec(compile(code, f"{name}.md", "exec"), module.__dict__)
        return module

    return page


@contextlib.asynccontextmanager
async def browser(module: ModuleType) -> AsyncIterator[Any]:
    """A browser without a memory of its own, for either kind of application."""
    if module.__name__ == "howto_fastapi":
        async with httpx.AsyncClient(transport=httpx.ASGITransport(module.app), headers=JSON) as client:
            yield client.request
        await module.runtime.stop()
        return
    transport = httpx.WSGITransport(getattr(module, "application", None) or module.app)
    client = httpx.Client(transport=transport, headers=JSON)

    async def request(*arguments: Any, **options: Any) -> httpx.Response:
        return await asyncio.to_thread(client.request, *arguments, **options)  # Django refuses to block an event loop

    with client:
        yield request


@pytest.mark.parametrize("page", ["fastapi", "flask", "django"])
async def test_howto(world: Any, run: Any, page: str) -> None:
    """Values, notes, files and users of each tenant are its own, by host and by path; strangers are refused."""
    acme, other = world.tenant("acme"), world.tenant("other")
    module = run(page)
    async with browser(module) as request:
        at = {"acme": "http://acme.example.com", "other": "http://example.com/t/other"}
        home = await request("GET", at["acme"] + "/")
        assert home.json() == {"tenant": "Acme", "title": "Acme"}
        for slug, address in at.items():
            assert (await request("POST", address + "/notes", content=f"of {slug}")).status_code == 201
            assert (await request("PUT", address + "/media/a/b", content=slug)).status_code == 204
        for slug, address in at.items():
            assert (await request("GET", address + "/notes")).json() == [slug, f"of {slug}"]
            assert (await request("GET", address + "/media/a/b")).text == slug
            assert (await request("GET", address + "/media/nothing")).status_code == 404

        for environment in (acme, other):
            with tenant_context(environment):
                await create(module.runtime, page)
        await users_of(request, at)
        assert (await request("GET", "http://nobody.example.com/")).status_code == 404


async def users_of(request: Any, at: dict[str, str]) -> None:
    """Sign-in, the current user, roles, and where browsers are sent."""
    given = {"login": "eva", "password": "correct horse"}
    nobody = await request("GET", at["acme"] + "/me")
    assert (nobody.status_code, nobody.json()["code"]) == (401, "user.unknown")
    assert nobody.headers["www-authenticate"] == "Bearer"
    shown = {"accept": "text/html,*/*;q=0.8", "sec-fetch-dest": "document"}
    for path, where in (
        ("/me?a=1&b=%2F", "/t/other/sign-in?next=/t/other/me%3Fa%3D1%26b%3D%252F"),
        ("/invoices", "/t/other/sign-in?next=/t/other/invoices"),
    ):
        sent = await request("GET", at["other"] + path, headers=shown)
        assert (sent.status_code, sent.headers["location"]) == (303, where)
    asked = await request("GET", at["other"] + "/me", headers=shown | {"sec-fetch-dest": "empty"})
    assert (asked.status_code, "Please sign in" in asked.text) == (401, True)
    signed = await request("POST", at["acme"] + "/sign-in", json=given)
    cookie = {"cookie": "a={'b'; " + signed.headers["set-cookie"].partition(";")[0]}
    eva = await request("GET", at["acme"] + "/me", headers=cookie)
    assert eva.json() == {"login": "eva", "role": "user"}
    small = await request("GET", at["acme"] + "/invoices", headers=cookie)
    assert (small.status_code, small.json()["code"]) == (403, "user.forbidden")
    anew = await request("POST", at["acme"] + "/sign-in", json=given, headers=cookie)  # leaves the session before
    over = await request("GET", at["acme"] + "/me", headers=cookie)
    assert (over.status_code, over.json()["code"]) == (401, "user.unknown")
    cookie = {"cookie": anew.headers["set-cookie"].partition(";")[0]}
    foreign = await request("GET", at["other"] + "/me", headers=cookie)
    assert (foreign.status_code, foreign.json()["code"]) == (401, "session.foreign")
    wrong = await request("POST", at["other"] + "/sign-in", json=given | {"password": "wrong horse"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "account.refused")
    by_path = await request("POST", at["other"] + "/sign-in", json=given | {"login": "ada"})
    assert "Path=/t/other;" in by_path.headers["set-cookie"]
    ada = {"cookie": by_path.headers["set-cookie"].partition(";")[0]}
    assert (await request("GET", at["other"] + "/invoices", headers=ada)).json() == []
    small = await request("GET", at["acme"] + "/invoices", headers=cookie | shown)
    assert (small.status_code, "This is not for you" in small.text) == (403, True)
    gone = await request("POST", at["acme"] + "/sign-out", headers=cookie)
    assert gone.headers["set-cookie"].startswith("tenantry_session=; Path=/; Max-Age=0")
    assert (await request("GET", at["acme"] + "/me", headers=cookie)).status_code == 401


async def create(made: Any, page: str) -> None:
    for login, role in (("ada", Role.ADMIN), ("eva", Role.USER)):
        work = made.accounts.create(login, "correct horse", role=role)
        if page == "fastapi":
            await work
        else:
            made.wait(work)

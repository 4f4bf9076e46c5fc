"""Scripts in every text that the portal keeps or gives back, looked at on every page in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from playwright.sync_api import Browser, BrowserContext, Page

import attacks as a
import ground as g
from tenantry.config import load
from tenantry.identity.principal import SCOPES, AdminRole, Principal, acting_as
from tenantry.identity.signin import Client, SignIn
from tenantry.platform import Platform
from tenantry.registry import people
from tenantry.registry.database import now
from tenantry.web.portal import PARTS
from tenantry.web.site import site

PASSWORD = "correct horse battery"
ROOT = "root@example.org"

ELEMENT = "\"'><script>__pwned=1</script><img src=x data-evil onerror=__pwned=2><svg data-evil onload=__pwned=3>"
ATTRIBUTE = 'evil" data-evil autofocus onfocus="__pwned=4" style="x'
CLOSING = '</title></textarea></select></script><a data-evil href="javascript:__pwned=5">x</a>'
HTMX = "<div data-evil hx-get=/admin/me hx-trigger=load hx-on::load=__pwned=6 sse-connect=/x></div>"
TEMPLATE = "{{7*7}}{% raw %}<b data-evil>';__pwned=7//</b>"
PAYLOADS = (ELEMENT, ATTRIBUTE, CLOSING, HTMX, TEMPLATE, "javascript:__pwned=8//<i data-evil>")

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "=HYPERLINK(\"//x\",\"y\")", "\uff1d1+1")  # fmt: skip

NOTED = """
window.__noted = [];
document.addEventListener("securitypolicyviolation", (one) => window.__noted.push(one.violatedDirective + one.sample));
"""

FOUND = """() => [
  ...window.__noted,
  ...(window.__pwned ? ["ran: " + window.__pwned] : []),
  ...[...document.querySelectorAll("[data-evil], [onerror], [onload], [onfocus]")].map((one) => one.outerHTML),
  ...[...document.querySelectorAll("a[href], form[action], [formaction]")]
      .filter((one) => /^\\s*javascript:/i.test(one.getAttribute("href") ?? one.getAttribute("action") ?? ""))
      .map((one) => one.outerHTML),
]"""

TYPED = "input:not([type]), input[type=text], input[type=email], input[type=search], input[type=password], textarea"


@dataclass
class Served:
    """Where the portal is, and what stands in its paths."""

    url: str
    ground: g.Ground
    token: str = ""
    places: dict[str, list[str]] = field(default_factory=dict)


async def _fill(platform: Platform, places: dict[str, list[str]]) -> None:
    """Keep every payload in every text that a verb keeps."""
    for at, payload in enumerate(PAYLOADS):
        settings = {"site_name": payload, "smtp_password": payload}
        made = await platform.tenants.create(f"t{at}", payload, settings=settings)
        await platform.operations.finish(made.id)
        row = await platform.organizations.create(payload, f"o{at}@example.org")
        await platform.organizations.assign(row.id, [f"t{at}"])
        places["organization"].append(row.id)
        admin = (await platform.admins.invite(f"a{at}@example.org", payload)).admin
        places["admin"].append(admin.id)
        await platform.tokens.create(payload, SCOPES, admin=admin.id)
        await platform.operations.finish((await platform.tenants.suspend(f"t{at}", payload)).id)
    for name in FORMULAS:
        await platform.organizations.create(name, "f@example.org")
        await platform.operations.finish((await platform.tenants.create(f"f{FORMULAS.index(name)}", name)).id)
    rows = "".join('"{0}","{0}","{0}","{0}"\n'.format(one.replace('"', '""')) for one in PAYLOADS)
    listed = await platform.tenants.import_text(f"slug,name,plan,blueprint\n{rows}", ELEMENT)
    await platform.operations.finish(listed.id)
    root = (await platform.admins.show(ROOT)).row
    for payload in PAYLOADS:  # every entry and every operation names the token that asked
        token = Principal(root.id, root.mail, AdminRole.SUPERADMIN, token=payload, scopes=frozenset(SCOPES))
        with acting_as(token):
            await platform.tokens.create(payload, SCOPES)
            await platform.operations.finish((await platform.tenants.resume(f"t{PAYLOADS.index(payload)}")).id)
    async with platform.registry.write() as tx:
        for at, payload in enumerate(PAYLOADS):
            entered = {"id": f"key{at}", "public_key": b"x", "sign_count": 0, "admin_id": root.id, "name": payload}
            await people.add_passkey(tx, {**entered, "created": now()})


async def _fail(platform: Platform, ground: g.Ground) -> None:
    """A migration that fails, and says a payload, at each tenant; one that stays queued."""
    spoken = ELEMENT.replace('"', "'")
    ground.migration("0002_evil.sql", f'SELECT * FROM "{spoken}";\n-- down\nSELECT 1;\n')


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A platform full of payloads, served by uvicorn."""
    toml = g.TOML.replace('name = "Ground"', "name = '''<i data-evil>Ground'''").replace(
        '"A site"', "'''{{{{7*7}}}}<i data-evil onload=__pwned=9>'''"
    )
    ground = g.Ground(tmp_path_factory.mktemp("scripts") / "platform", toml)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places: dict[str, list[str]] = {"organization": [], "admin": [], "operation_id": []}
    found = Served(f"http://localhost:{port}/admin", ground, places=places)

    async def prepare() -> None:
        async with ground.open() as platform:
            link = (await platform.admins.invite(ROOT, ELEMENT, AdminRole.SUPERADMIN)).link
            await SignIn(platform.registry).take(link, PASSWORD, Client("127.0.0.1", ELEMENT))
            await _fill(platform, found.places)
            found.token = (await platform.tokens.create("api", SCOPES, admin=ROOT)).token
        await _fail(platform, ground)
        async with ground.open() as platform:
            run = await platform.migrations.run(0, ["100%"])
            assert (await platform.operations.finish(run.id)).operation.error
            await platform.tenants.suspend("t0", ELEMENT)  # stays queued
            newest = await platform.operations.list(limit=1000)
            kinds = {one.verb: one.id for one in newest}  # one of each verb
            found.places["operation_id"] = [*kinds.values(), newest[0].id, run.id]

    _alone(lambda: asyncio.run(prepare()))
    server = uvicorn.Server(uvicorn.Config(site(load(ground.config)), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        for payload in (*PAYLOADS, *FORMULAS):  # refused sign-ins stand in the audit log
            form = {"mail": payload, "password": "wrong"}
            httpx.post(f"{found.url}/sign-in", data=form, headers={"User-Agent": "x"}, timeout=g.PATIENCE)
        for payload in PAYLOADS:
            form = {"mail": ROOT, "password": PASSWORD}
            browser = {"User-Agent": payload}
            assert httpx.post(f"{found.url}/sign-in", data=form, headers=browser, timeout=g.PATIENCE).status_code == 303
        yield found
    finally:
        server.should_exit = True
        thread.join()


def _alone(work: object) -> None:
    """Do it in a thread without Playwright's loop; what it raises is raised here."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]


@pytest.fixture
def window(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    """A window in which the superadmin is signed in, that notes what the policy had to stop."""
    context = browser.new_context()
    context.set_default_timeout(20_000)
    context.add_init_script(NOTED)
    page = context.new_page()
    page.goto(f"{served.url}/sign-in")
    page.fill("[name=mail]", ROOT)
    page.fill("[name=password]", PASSWORD)
    page.click("main button.main")
    page.wait_for_url(f"{served.url}/")
    yield context
    context.close()


def clean(page: Page, what: str) -> None:
    """Nothing of a payload became an element, an attribute or a script."""
    found = page.evaluate(FOUND)
    assert found == [], (what, found)


def look(page: Page, address: str) -> None:
    """Go to a page, which bears what it holds."""
    answer = page.goto(address, wait_until="domcontentloaded")
    assert answer is not None
    assert answer.status < 500, (address, page.inner_text("body"))
    clean(page, address)


def addresses(served: Served) -> Iterator[str]:
    """Every page, with what is full of payloads in its places."""
    for path in a.routes("GET"):
        if path.endswith(("/steps", "/options", ".csv", "/export")) or "report." in path or path == "/sign-out":
            continue
        for name, values in served.places.items():
            if "{" + name + "}" in path:
                yield from (a.filled(path, a.EVERY | {name: value}, slug="t0") for value in dict.fromkeys(values))
                break
        else:
            yield from (a.filled(path, slug=slug) for slug in (("t0", "t1") if "{slug}" in path else ("t0",)))


def test_no_kept_text_becomes_a_script(served: Served, window: BrowserContext) -> None:
    """Every page, with every payload in every text that it shows: they are read as they were written."""
    page, dialogs = window.pages[0], []
    page.on("dialog", lambda one: (dialogs.append(one.message), one.dismiss()))
    shown = ""
    for path in addresses(served):
        look(page, f"{served.url}{path}")
        shown += page.inner_text("body")
    assert dialogs == []
    for payload in PAYLOADS[:5]:
        assert payload in shown  # it was there to be seen
    assert "no such table: " in shown


def values(dependant: Dependant) -> Iterator[str]:
    """What a page takes in its query."""
    yield from (one.alias for one in dependant.query_params)
    for inner in dependant.dependencies:
        yield from values(inner)


def test_no_asked_text_becomes_a_script(served: Served, window: BrowserContext) -> None:
    """Every value in every page's query, and every place in its path, given back or not."""
    page = window.pages[0]
    for route in [one for part in PARTS for one in part.router.routes if isinstance(one, APIRoute)]:
        if "GET" not in route.methods or route.path.endswith(("/export", ".csv", "/steps", "/options")):
            continue
        known = {name: found[0] for name, found in served.places.items()}
        path = a.filled(route.path, a.EVERY | known, slug="t0")
        asked = [f"{path}?{httpx.QueryParams({name: ELEMENT})}" for name in values(route.dependant)]
        asked += [f"{path}?{httpx.QueryParams({name: ATTRIBUTE})}" for name in values(route.dependant)]
        for name in re.findall(r"\{(\w+)\}", route.path):
            broken = httpx.URL(f"/{CLOSING.replace('/', '')}").raw_path.decode()[1:]
            asked.append(a.filled(route.path, a.EVERY | known | {name: broken}))
        for one in asked:
            if "report." in one:
                continue
            look(page, f"{served.url}{one}")


def test_no_typed_text_becomes_a_script(served: Served, window: BrowserContext) -> None:
    """Every form with a text in it, filled with payloads and sent: what is kept or refused is shown harmless."""
    page = window.pages[0]
    sent: set[str] = set()
    for path in [*addresses(served), "/forgot", "/sign-in"]:
        page.goto(f"{served.url}{path}", wait_until="domcontentloaded")
        actions = page.evaluate(
            f"""() => [...document.forms].map((form) => form.method === "post"
                && [...form.elements].some((one) => one.matches({TYPED!r})) ? form.action : null)"""
        )
        for at, action in enumerate(actions):
            kind = re.sub(r"[0-9a-f-]{30,}|\bt\d\b", "…", action or "")
            if action is None or kind in sent:
                continue
            sent.add(kind)
            for payload in (ELEMENT, ATTRIBUTE):
                page.goto(f"{served.url}{path}", wait_until="domcontentloaded")
                if page.evaluate("(at) => document.forms[at]?.action ?? null", at) != action:
                    break  # what was sent before took the form away
                with page.expect_navigation(wait_until="domcontentloaded"):
                    page.evaluate(
                        f"""([at, payload]) => {{
                            const form = document.forms[at];
                            for (const one of form.elements) if (one.matches({TYPED!r})) one.value = payload;
                            HTMLFormElement.prototype.submit.call(form);
                        }}""",
                        [at, payload],
                    )
                clean(page, f"{action} of {path}")
    assert len(sent) >= 20, sent


def bodies(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each address of the API that takes texts, with a right body that has a payload in one of them, each in turn."""
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            schema = _resolved(described, content)
            fields = {name: _resolved(described, one) for name, one in schema.get("properties", {}).items()}
            right = {name: _example(fields[name]) for name in schema.get("required", ())}
            for name, one in fields.items():
                yield from ((method, path, right | {name: given}) for given in _evil(one))


def _resolved(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema itself, without its reference, and without the choice of giving nothing."""
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        schema = schema | next(one for one in choices if one.get("type") != "null")
    reference = schema.get("$ref")
    return described["components"]["schemas"][reference.rpartition("/")[2]] if reference else schema


def _example(schema: dict[str, Any]) -> Any:
    if "examples" in schema:
        return schema["examples"][0]
    kinds = {"array": ["tenants:read"], "object": {}, "integer": 1, "boolean": True}
    return schema.get("enum", [kinds.get(schema.get("type", ""), "some text")])[0]


def _evil(schema: dict[str, Any]) -> list[Any]:
    """Values with a payload in them, where texts are taken."""
    kind = schema.get("type")
    if kind == "array":
        return [[payload] for payload in (ELEMENT, ATTRIBUTE)]
    if kind == "object":
        return [{"site_name": payload, payload[:60]: payload} for payload in (ELEMENT, ATTRIBUTE)]
    return [ELEMENT, ATTRIBUTE] if kind == "string" else []


def test_no_text_of_the_api_becomes_a_script(served: Served, window: BrowserContext) -> None:
    """Every text in every body that the API takes, kept or refused: then every page, which reads as it was written."""
    base = served.url.removesuffix("/admin")
    with httpx.Client(base_url=base, timeout=g.PATIENCE, headers={"Authorization": f"Bearer {served.token}"}) as client:
        described = client.get("/api/openapi.json").json()
        known = a.EVERY | {name: found[-1] for name, found in served.places.items()} | {"slug": "t1"}
        told = []
        for method, path, body in bodies(described):
            answer = client.request(method, a.filled(path, known), json=body)
            assert answer.status_code < 500, (path, body, answer.text)
            assert "text/html" not in answer.headers["content-type"], path
            told.append(answer.status_code)
        assert len(told) > 60
        assert sum(status < 300 for status in told) > 10  # and so kept
    for path in addresses(served):
        look(window.pages[0], f"{served.url}{path}")


def test_no_list_holds_a_formula(served: Served, window: BrowserContext) -> None:
    """Lists for spreadsheets: no cell begins as a formula does, whatever names tenants have and strangers typed."""
    for path in ("/tenants/-/export.csv", "/audit/export"):
        text = window.request.get(f"{served.url}{path}").text()
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert [cell for cell in cells if cell[:1] and cell[0] in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"] == []
        assert {f"'{one}" for one in FORMULAS} <= set(cells), path
    with contextlib.closing(sqlite3.connect(served.ground.data / "control.sqlite")) as control:
        (kept,) = control.execute("SELECT count(*) FROM tenant WHERE name = '=1+1'").fetchone()
    assert kept == 1

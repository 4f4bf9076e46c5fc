"""The tab of tenants by plain HTTP: what it takes and refuses, whose it is, and lists in any order, in and out."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape

import pytest

import ground as g
from portals import Desk, Person, desk
from tenantry.identity.principal import AdminRole

EVIL = "<script>alert('x')</script> & \"Söhne\""


async def test_a_tenant_is_created_with_its_values(ground: g.Ground) -> None:
    """The plan comes first and writes nothing; then the operation, its steps, and the password that is shown once."""
    async with desk(ground) as here:
        root = await here.person("root")
        form = {"slug": "acme", "name": EVIL, "plan": "pro", "value.share": "4", "value.smtp_password": "hush-hush"}
        planned = await root.send("/tenants/new", {**form, "do": "plan"})
        assert "acme.localhost" in planned.text
        assert await here.platform.tenants.list() == []
        made = await root.send("/tenants/new", {**form, "do": "create"})
        assert "No worker lives" in made.text
        assert "tenantry worker" in made.text
        await here.finish()
        ready = await root.client.get(str(made.url))
        assert "is ready" in ready.text
        assert "http://acme.localhost/" in ready.text
        shown = await root.send("/tenants/acme/credentials")
        password = re.search(r"Password</dt><dd class=\"once\"><code>([^<]{22})</code>", shown.text)
        assert password is not None
        again = await root.send("/tenants/acme/credentials")
        assert "shown before" in again.text
        assert password[1] not in again.text
        found = await here.platform.tenants.show("acme")
        assert (found.row.name, found.row.plan, found.tenant.settings) == (EVIL, "pro", {"share": 4})
        assert json.loads(ground.rendered("acme").read_text())["smtp"] == "hush-hush"
        page = await root.get("/tenants/acme")
        assert "hush-hush" not in page.text
        assert "<script>alert" not in page.text
        assert EVIL in unescape(page.text)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"slug": "Bad Slug"}, "capital letters"),
        ({"slug": "admin"}, "reserved"),
        ({"slug": "there"}, "taken"),
        ({"slug": "fine", "plan": "gold"}, "There is no plan 'gold'."),
        ({"slug": "fine", "value.share": "many"}, "a whole number"),
        ({"slug": "fine", "name": "x" * 300}, "longer than 200"),
        ({"slug": ""}, "it is empty"),
    ],
)
async def test_what_is_wrong_is_told_above_the_form(ground: g.Ground, form: dict[str, str], told: str) -> None:
    """With the remedy, and with what was typed."""
    async with desk(ground) as here:
        root = await here.person("root")
        await here.create("there")
        answer = await root.send("/tenants/new", {**form, "do": "create"})
        assert answer.status_code in (403, 409, 422), answer.status_code
        assert told in unescape(answer.text)
        assert f'value="{form["slug"]}"' in answer.text
        assert len(await here.platform.tenants.list()) == 1


async def test_a_slug_is_checked_as_one_types(ground: g.Ground) -> None:
    """Free, taken, reserved or none at all."""
    async with desk(ground) as here:
        root = await here.person("root")
        await here.create("acme")
        for slug, told in (("acme", "taken"), ("api", "reserved"), ("a--b", "two hyphens"), ("bistro", "is free")):
            assert told in (await root.get("/tenants/-/slug", slug=slug)).text
        assert "is free" in (await root.get("/tenants/-/slug", to="bistro")).text


async def test_a_tenant_is_changed_by_its_page(ground: g.Ground) -> None:
    """Edited, renamed, suspended, resumed, given a name and rid of it, and removed once its slug was typed."""
    async with desk(ground) as here:
        root = await here.person("root")
        await here.create("acme")
        form = {"name": "Acme", "plan": "pro", "value.share": "5", "value.smtp_password": "hush"}
        assert "is being changed" in (await root.send("/tenants/acme/edit", form)).text
        await here.finish()
        kept = {"name": "Acme", "plan": "pro", "value.share": "", "value.smtp_password": ""}
        await root.send("/tenants/acme/edit", kept)
        await here.finish()
        found = await here.platform.tenants.show("acme")
        assert (found.row.name, found.row.plan, found.tenant.settings) == ("Acme", "pro", {})
        assert json.loads(ground.rendered("acme").read_text())["smtp"] == "hush"
        await root.send("/tenants/acme/edit", {**kept, "forget.smtp_password": "1"})
        await here.finish()
        assert json.loads(ground.rendered("acme").read_text())["smtp"] == ""
        await root.send("/tenants/acme/suspend", {"reason": "unpaid"})
        await here.finish()
        assert "suspended: unpaid" in (await root.get("/tenants/acme")).text
        assert "cannot" in (await root.send("/tenants/acme/suspend", {"reason": "again"})).text
        await root.send("/tenants/acme/resume")
        await here.finish()
        await root.send("/tenants/acme/hostnames", {"host": "WWW.Example.org"})
        assert "www.example.org" in (await root.get("/tenants/acme")).text
        assert "blueprint" in (await root.send("/tenants/acme/hostnames", {"host": "x.localhost"})).text
        await root.send("/tenants/acme/hostnames/remove", {"host": "www.example.org"})
        assert "www.example.org</td>" not in (await root.get("/tenants/acme")).text
        await root.send("/tenants/acme/rename", {"to": "acme-2"})
        await here.finish()
        refused = await root.send("/tenants/acme-2/delete", {"confirmed": "acme"})
        assert refused.status_code == 409
        assert "acme-2" in refused.text
        await root.send("/tenants/acme-2/delete", {"confirmed": "acme-2"})
        await here.finish()
        assert await here.platform.tenants.list() == []


async def test_a_broken_tenant_shows_what_is_wrong(ground: g.Ground) -> None:
    """Testing the connection names each finding with its remedy."""
    async with desk(ground) as here:
        root = await here.person("root")
        await here.create("acme")
        assert "connected" in (await root.get("/tenants/acme/connection")).text
        ground.database("acme").unlink()
        broken = await root.get("/tenants/acme/connection")
        assert "1 of 3 failed" in broken.text


async def test_an_admin_sees_her_tenants_alone(ground: g.Ground) -> None:
    """Another's is not there, on no page and by no form; hers she changes, but she makes none and gives none away."""
    async with desk(ground) as here:
        await here.create("acme", "umbrella")
        ana = await here.person("ana", AdminRole.ADMIN)
        await here.platform.admins.assign("ana@example.org", ["acme"])
        listed = (await ana.get("/")).text
        assert "/admin/tenants/acme" in listed
        assert "umbrella" not in listed
        assert "/admin/tenants/new" not in listed
        assert "umbrella" not in (await ana.get("/tenants/-/export.csv")).text
        for path in ("", "/edit", "/delete", "/connection"):
            assert (await ana.get(f"/tenants/acme{path}")).status_code == 200, path
            assert (await ana.get(f"/tenants/umbrella{path}")).status_code == 404, path
        for path, form in (
            ("/edit", {"name": "Mine"}),
            ("/rename", {"to": "mine"}),
            ("/suspend", {"reason": "x"}),
            ("/resume", {}),
            ("/delete", {"confirmed": "umbrella"}),
            ("/credentials", {}),
            ("/login", {"resource": "db", "environment": "production"}),
            ("/hostnames", {"host": "www.example.org"}),
            ("/hostnames/remove", {"host": "umbrella.localhost"}),
        ):
            assert (await ana.send(f"/tenants/umbrella{path}", form)).status_code == 404, path
        for path in ("/tenants/new", "/tenants/-/import"):
            form = {"slug": "mine", "do": "create", "text": "slug\nmine\n"}
            assert (await ana.send(path, form)).status_code == 403, path
        foreign = next(o for o in await here.platform.operations.list() if o.tenant_slug == "umbrella")
        assert (await ana.get(f"/operations/{foreign.id}/steps")).status_code == 404
        assert (await ana.get(f"/tenants/-/made/{foreign.id}")).status_code == 404
        answers = await ana.send("/tenants/-/many", {"slug": ["acme", "umbrella"], "action": "suspend", "reason": "x"})
        assert "1 of 2 taken" in answers.text
        await here.finish()
        rows = await here.platform.tenants.list()
        assert [(row.slug, row.status) for row in rows] == [("acme", "suspended"), ("umbrella", "active")]


async def test_no_form_is_taken_from_elsewhere(ground: g.Ground) -> None:
    """Without this session's own token, or sent by another site, or by nobody."""
    async with desk(ground) as here:
        await here.create("acme")
        root, eve = await here.person("root"), await here.person("eve")
        hers = re.search(r'name="csrf" value="([^"]+)"', (await eve.get("/")).text)
        assert hers is not None
        for path in ("new", "-/many", "-/import", *(f"acme/{p}" for p in ("edit", "rename", "suspend", "delete"))):
            for csrf in ("", "nonsense", hers[1]):
                assert (await root.send(f"/tenants/{path}", {"confirmed": "acme"}, csrf=csrf)).status_code == 403
            answer = await root.send(f"/tenants/{path}", headers={"sec-fetch-site": "cross-site"})
            assert answer.status_code == 403
        root.client.cookies.clear()
        assert "Sign in to run" in (await root.get("/tenants/acme")).text
        assert (await here.platform.tenants.show("acme")).row.status == "active"


async def test_many_are_done_with_an_answer_for_each(ground: g.Ground) -> None:
    """Suspended, resumed, put into an organization; one that cannot be says why and holds nobody up."""
    async with desk(ground) as here:
        root = await here.person("root")
        await here.create("acme", "bistro")
        group = await here.platform.organizations.create("Group", "group@example.org")
        many = {"slug": ["acme", "bistro", "gone"]}
        told = await root.send("/tenants/-/many", {**many, "action": "suspend", "reason": "unpaid"})
        assert "2 of 3 taken" in told.text
        assert "There is no tenant &#39;gone&#39;." in told.text
        await here.finish()
        assert {row.reason for row in await here.platform.tenants.list()} == {"unpaid"}
        assert "2 of 3 taken" in (await root.send("/tenants/-/many", {**many, "action": "resume"})).text
        await here.finish()
        await root.send("/tenants/-/many", {**many, "action": "assign", "organization": group.id})
        assert (await here.platform.organizations.show("Group")).tenants == ["acme", "bistro"]
        assert "<dt>Organization</dt><dd><bdi>Group</bdi></dd>" in (await root.get("/tenants/acme")).text
        assert (await root.send("/tenants/-/many", {**many, "action": "destroy"})).status_code == 422
        assert "Tick the tenants first" in (await root.send("/tenants/-/many", {"action": "suspend"})).text


def slugs(page: str) -> list[str]:
    """The tenants that a page of the list shows, in its order."""
    return re.findall(r'name="slug" value="([^"]+)"', page)


async def listed(here: Desk, number: int) -> None:
    """Many tenants, in several ways alike: rows alone, since only the list is looked at."""
    text = "slug,name,plan\n" + "".join(
        f"t-{i:03},{'Ä' if i % 2 else 'b'}{i % 7} GmbH,{'pro' if i % 3 else 'free'}\n" for i in range(number)
    )
    await here.platform.operations.finish((await here.platform.tenants.import_text(text)).id)


SORTS = [f"{sign}{name}" for name in ("slug", "name", "created", "status") for sign in ("", "-")]


async def test_pages_lead_on_and_back_in_every_order(ground: g.Ground) -> None:
    """Every tenant is on one page and no other; the way back shows the same pages."""
    async with desk(ground) as here:
        root = await here.person("root")
        await listed(here, 120)
        await here.platform.operations.finish((await here.platform.tenants.suspend("t-050")).id)
        for sort in SORTS:
            expected = [row.slug for row in await here.platform.tenants.list(sort=sort, limit=1000)]
            assert sorted(expected) == [f"t-{i:03}" for i in range(120)]
            if sort.endswith("slug"):
                assert expected == sorted(expected, reverse=sort.startswith("-"))
            await _leafed_through(root, sort, expected)


async def _leafed_through(person: Person, sort: str, expected: list[str]) -> None:
    page = await person.get("/", sort=sort)
    assert "Page before" not in page.text
    forward = [slugs(page.text)]
    while onward := re.search(r'rel="next" href="/admin([^"]+)"', page.text):
        page = await person.get(unescape(onward[1]))
        forward.append(slugs(page.text))
    assert [slug for some in forward for slug in some] == expected
    backward = [slugs(page.text)]
    while back := re.search(r'rel="prev" href="/admin([^"]+)"', page.text):
        page = await person.get(unescape(back[1]))
        backward.append(slugs(page.text))
    assert [slug for some in reversed(backward) for slug in some] == expected


async def test_lists_are_filtered_and_refuse_nonsense(ground: g.Ground) -> None:
    """By status, plan and search together; SQL in a filter is a text like any other, an unknown order is refused."""
    async with desk(ground) as here:
        root = await here.person("root")
        await listed(here, 20)
        page = await root.get("/", plan="free", search="ä1")
        wanted = [row.slug for row in await here.platform.tenants.list(plan="free", search="ä1")]
        assert slugs(page.text) == wanted != []
        for name in ("search", "status", "blueprint", "plan"):
            assert "No tenant is like that" in (await root.get("/", **{name: "' OR 1=1 --"})).text
        assert (await root.get("/", sort="password")).status_code == 422
        assert (await root.get("/", sort="created", after="nonsense")).status_code == 422
        for sort in ("slug", "name", "status"):
            assert (await root.get("/", sort=sort, after="' OR 1=1 --", before="%00\x00")).status_code == 200


async def test_a_list_goes_out_without_formulas_and_comes_in_again(ground: g.Ground) -> None:
    """A cell that a spreadsheet would run is defused; what went out can be read in as it was."""
    async with desk(ground) as here:
        root = await here.person("root")
        names = {"evil": '=HYPERLINK("http://evil.example/","x")', "minus": "-2+3", "at": "@SUM(1)", "plain": 'A, "B"'}
        for slug, name in names.items():
            await here.platform.operations.finish((await here.platform.tenants.create(slug, name)).id)
        answer = await root.get("/tenants/-/export.csv", search="")
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert {row["slug"]: row["name"].removeprefix("'") for row in rows} == names
        assert not any(row["name"][0] in "=+-@" for row in rows)
        assert len((await root.get("/tenants/-/export.csv", search="evil")).text.splitlines()) == 2
        copied = "".join(f'copy-{row["slug"]},"{row["name"].replace(chr(34), chr(34) * 2)}"\n' for row in rows)
        await root.send("/tenants/-/import", {"text": f"slug,name\n{copied}"})
        await here.finish()
        for slug, name in names.items():
            assert (await here.platform.tenants.show(f"copy-{slug}")).row.name == name


async def test_an_import_names_each_bad_row(ground: g.Ground) -> None:
    """By its line; the good ones are made. What is no list at all is told above the form."""
    async with desk(ground) as here:
        root = await here.person("root")
        await here.create("there")
        text = "slug,name,share\nfine,Fine,3\nBAD,Bad,\nthere,There,\nodd,Odd,many\n"
        files = {"file": ("tenants.csv", text.encode("utf-8-sig"), "text/csv")}
        await root.send("/tenants/-/import", files=files)
        await here.finish()
        operation = (await here.platform.operations.list(verb="import"))[0]
        details = await here.platform.operations.show(operation.id)
        messages = [item.error["message"] for item in details.items if item.error]
        assert [message[:6] for message in messages] == ["line 3", "line 4", "line 5"]
        assert (await here.platform.tenants.show("fine")).tenant.settings == {"share": 3}
        wrong = [
            (b"\xff\xfe", "not UTF-8"),
            (b"a,b\n1,2\n", "neither"),
            (b"", "heading"),
            (b'"slug" x,name\n', "line 1"),
        ]
        for content, told in wrong:
            answer = await root.send("/tenants/-/import", files={"file": ("list.csv", content, "text/csv")})
            assert told in answer.text, content

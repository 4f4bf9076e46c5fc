"""Storyfront in a real browser, served by the real `tenantry serve`."""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import expect
from storyfront.site import LOOKS

from storyfront import colour, media, text

if TYPE_CHECKING:
    from conftest import Storyfront, Visit, Windows

pytestmark = pytest.mark.browser

BODY = """
Opening on **Friday**.

<script>window.ran = 1; document.title = "taken over"</script>

[a trap](javascript:window.ran=1) and [a visit](about)
"""


def png(width: int = 320, height: int = 200) -> bytes:
    """A picture with a gradient (PNG specification, section 5)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"".join(bytes((x * 255 // width, y, 120)) for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write(visit: Visit, address: str, title: str, body: str) -> None:
    """Write a story and publish it."""
    visit.page.goto(address + "desk/pages/new")
    visit.page.fill("#title", title)
    visit.page.fill("#body", body)
    visit.page.click("text=Publish")
    expect(visit.page.locator(".said")).to_have_text("Published.")


def test_an_admin_writes_a_page_that_visitors_read_and_its_script_does_not_run(
    storyfront: Storyfront, visit: Visit
) -> None:
    """The first admin signs in with the password that was shown once; Markdown is published, a script in it is not."""
    home = storyfront.host("acme")
    visit.sign_in(home, *storyfront.admins["acme"])
    visit.page.goto(home + "desk/pages/new")
    visit.page.fill("#title", "Grand opening")
    visit.page.fill("#body", BODY)
    expect(visit.page.locator("[data-body] strong")).to_have_text("Friday")
    visit.page.click("text=Publish")
    visit.page.goto(home + "grand-opening")
    expect(visit.page.locator("h1")).to_have_text("Grand opening")
    expect(visit.page.locator(".prose strong")).to_have_text("Friday")
    assert visit.page.evaluate("window.ran") is None
    assert "taken over" not in visit.page.content()
    expect(visit.page.locator("a >> text=a trap")).to_have_count(0)
    assert visit.page.get_by_text("a visit").get_attribute("href") == "/about"
    visit.page.click(".bar-end a >> text=admin@acme.localhost")
    visit.page.click("text=Sign out")
    expect(visit.page.locator("main")).to_contain_text("You are signed out.")
    visit.page.goto(home)
    expect(visit.page.locator(".bar")).to_have_count(0)
    expect(visit.page.locator(".card >> text=Grand opening")).to_be_visible()
    visit.page.goto(home + "search?q=opening+fri")
    expect(visit.page.locator(".found a")).to_have_text("Grand opening")
    assert "<title>Grand opening</title>" in storyfront.get(home + "feed.xml").text


def test_a_picture_is_uploaded_shown_and_put_into_a_page(storyfront: Storyfront, visit: Visit) -> None:
    """A picture comes in through the library, is served as what it is, and stands in a page."""
    home = storyfront.host("acme")
    visit.sign_in(home, *storyfront.admins["acme"])
    visit.page.goto(home + "desk/media")
    visit.page.set_input_files("#file", {"name": "Our Shop.PNG", "mimeType": "text/html", "buffer": png()})
    visit.page.fill("#alt", "The shop at dawn")
    visit.page.click("button >> text=Upload")
    picture = visit.page.get_by_alt_text("The shop at dawn")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 320
    answer = storyfront.get(home + "media/our-shop.png")
    assert answer.content == png()
    assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("image/png", "nosniff")
    write(visit, home, "With a picture", "![The shop at dawn](media/our-shop.png)")
    visit.page.goto(home + "with-a-picture")
    assert (
        visit.page.get_by_alt_text("The shop at dawn").evaluate(
            "image => image.decode().then(() => image.naturalWidth)"
        )
        == 320
    )
    assert storyfront.get(storyfront.host("bistro", "/media/our-shop.png")).status_code == 404


def test_a_file_that_could_run_is_refused_or_only_downloaded(storyfront: Storyfront, visit: Visit) -> None:
    """A page of HTML is refused; a drawing that may carry scripts is offered as a download."""
    home = storyfront.host("bistro")
    visit.sign_in(home, *storyfront.admins["bistro"])
    visit.page.goto(home + "desk/media")
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    visit.page.set_input_files("#file", {"name": "a.svg", "mimeType": "image/svg+xml", "buffer": script})
    visit.page.click("button >> text=Upload")
    answer = storyfront.get(home + "media/a.svg")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert isinstance(media.judge("page.html", b"<script>alert(1)</script>"), str)
    assert media.judge("page.html", png()) == ("page.png", "image/png")
    assert isinstance(media.judge("big.pdf", b"x" * (media.LIMIT + 1)), str)


def test_a_site_changes_its_look_and_title(storyfront: Storyfront, visit: Visit) -> None:
    """Settings are the tenant's own: the other site keeps its look and title."""
    home = storyfront.host("bistro")
    visit.sign_in(home, *storyfront.admins["bistro"])
    visit.page.goto(home + "desk/settings")
    visit.page.fill("#title", "Bistro am Hafen")
    visit.page.check("input[value=studio]", force=True)
    visit.page.fill("#accent", "#ffd400")
    visit.page.click("main button >> text=Save")
    expect(visit.page.locator(".said")).to_have_text("Saved.")
    visit.page.goto(home)
    assert visit.page.locator("html").get_attribute("data-look") == "studio"
    assert visit.page.locator(".hero").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 212, 0)"
    expect(visit.page.locator(".brand")).to_contain_text("Bistro am Hafen")
    visit.page.goto(storyfront.host("acme"))
    assert visit.page.locator("html").get_attribute("data-look") == "paper"
    expect(visit.page.locator(".brand")).to_contain_text("Acme & Söhne")


def test_nothing_of_one_site_shows_at_another(storyfront: Storyfront, visit: Visit) -> None:
    """A page of one tenant is neither found, listed, searched nor fed at another, by host or by path."""
    visit.sign_in(storyfront.host("acme"), *storyfront.admins["acme"])
    write(visit, storyfront.host("acme"), "Kept apart", "The word is xylophone.")
    assert "xylophone" in storyfront.get(storyfront.host("acme", "/kept-apart")).text
    for address in (storyfront.host, storyfront.path):
        assert storyfront.get(address("bistro", "/kept-apart")).status_code == 404
        for page in ("/", "/stories", "/search?q=xylophone", "/feed.xml"):
            answer = storyfront.get(address("bistro", page))
            assert answer.status_code == 200
            assert "Kept apart" not in answer.text


def test_a_session_of_one_site_is_refused_at_another(storyfront: Storyfront, visit: Visit) -> None:
    """The cookie that opens one tenant's desk sends its bearer to the sign-in page of every other."""
    visit.sign_in(storyfront.host("acme"), *storyfront.admins["acme"])
    cookie = visit.session()
    for own in (storyfront.host("acme", "/desk"), storyfront.path("acme", "/desk")):
        assert storyfront.get(own, tenantry_session=cookie).status_code == 200
    for other in (storyfront.host("bistro", "/desk"), storyfront.path("bistro", "/desk")):
        answer = storyfront.get(other, tenantry_session=cookie)
        assert answer.status_code == 401
        answer = storyfront.get(other, accept="text/html", tenantry_session=cookie)
        assert answer.status_code == 303
        assert "/.tenantry/sign-in?next=" in answer.headers["location"]
    for page in (storyfront.host("bistro"), storyfront.path("bistro")):
        answer = storyfront.get(page, tenantry_session=cookie)
        assert (answer.status_code, 'class="bar"' in answer.text) == (200, False)
    visit.page.goto(storyfront.host("bistro", "/desk"))
    assert visit.page.url == storyfront.host("bistro", "/.tenantry/sign-in?next=/desk")


def test_a_site_works_below_a_path(storyfront: Storyfront, visit: Visit) -> None:
    """At /t/acme/ every link stays below it, and signing in, writing and pictures work there too."""
    home = storyfront.path("acme")
    visit.sign_in(home, *storyfront.admins["acme"])
    assert {cookie["path"] for cookie in visit.context.cookies()} == {"/t/acme"}
    write(visit, home, "By path", "See [about](about).")
    visit.page.click("text=History")
    own = (".tenantry/users", ".tenantry/me")
    for page in ("", "by-path", "stories", "search", "desk", "desk/media", "desk/settings", *own):
        visit.page.goto(home + page)
        assert urlsplit(visit.page.url).path == f"/t/acme/{page}"
        inside = visit.page.eval_on_selector_all("[href], [src], [action]", LINKS)
        assert inside
        assert [path for path in inside if not path.startswith("/t/acme/")] == []


LINKS = """all => all.map(e => e.getAttribute("href") ?? e.getAttribute("src") ?? e.getAttribute("action"))
  .map(path => new URL(path, location))
  .filter(url => url.origin === location.origin).map(url => url.pathname)"""


def test_a_form_of_another_site_or_session_is_refused(storyfront: Storyfront, visit: Visit) -> None:
    """A form is taken only with the token that this site made for this session."""
    visit.sign_in(storyfront.path("acme"), *storyfront.admins["acme"])
    visit.page.goto(storyfront.path("acme", "/desk/pages/new"))
    token = visit.page.locator(".editor input[name=csrf]").get_attribute("value")
    cookies = {cookie["name"]: cookie["value"] for cookie in visit.context.cookies()}
    for slug, sent, status in (
        ("acme", token, 200),
        ("acme", "0" * 64, 403),
        ("acme", "", 403),
        ("bistro", token, 401),
    ):
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        address = f"http://127.0.0.1:{storyfront.port}/t/{slug}/desk/preview"
        host = {"host": f"localhost:{storyfront.port}", "cookie": header}
        answer = httpx.post(address, data={"csrf": sent, "body": "*hello*"}, headers=host, timeout=20)
        assert answer.status_code == status
    visit.sign_in(storyfront.path("bistro"), *storyfront.admins["bistro"])
    visit.page.goto(storyfront.path("bistro", "/desk/pages/new"))
    assert visit.page.locator(".editor input[name=csrf]").get_attribute("value") != token
    visit.context.clear_cookies()
    visit.sign_in(storyfront.path("acme"), *storyfront.admins["acme"])
    visit.page.goto(storyfront.path("acme", "/desk/pages/new"))
    assert visit.page.locator(".editor input[name=csrf]").get_attribute("value") != token


def test_an_invited_reader_has_no_desk(storyfront: Storyfront, visit: Visit, window: Windows) -> None:
    """An invited person's link is shown once and works; a reader may not edit, and a disabled one not enter."""
    home = storyfront.host("acme")
    visit.sign_in(home, *storyfront.admins["acme"])
    visit.page.click(".bar >> text=People")
    visit.page.click("text=Invite somebody")
    visit.page.fill("[name=login]", "mira@acme.example")
    visit.page.click("button.main >> text=Invite")
    expect(visit.page.locator("main")).to_contain_text("/.tenantry/link/")
    shown = re.search(r"http://\S+/\.tenantry/link/[\w-]+", visit.page.inner_text("main"))
    assert shown is not None
    visit.page.goto(home + ".tenantry/users")
    assert "/.tenantry/link/" not in visit.page.content()
    with window() as reader:
        reader.page.goto(home + urlsplit(shown[0]).path[1:])
        for field in reader.page.locator("[type=password]").all():
            field.fill("a reader reads well")
        reader.page.click("main button >> nth=0")
        expect(reader.page.locator(".bar")).to_contain_text("mira@acme.example")
        expect(reader.page.locator(".bar li")).to_have_count(0)
        assert storyfront.get(home + "desk", tenantry_session=reader.session()).status_code == 403
        mira = visit.page.locator("li, tr").filter(has_text="mira@acme.example")
        for closed in mira.locator("summary").all():
            closed.click()
        mira.get_by_role("button", name=re.compile("^Disable")).click()
        expect(visit.page.locator("main")).to_contain_text("That user is signed out, and kept out.")
        reader.page.goto(home)
        expect(reader.page.locator(".bar")).to_have_count(0)


def test_the_preview_needs_no_script(storyfront: Storyfront, window: Windows) -> None:
    """Where scripts are off, the Preview button shows what readers will get."""
    with window(java_script_enabled=False) as visit:
        visit.sign_in(storyfront.host("acme"), *storyfront.admins["acme"])
        visit.page.goto(storyfront.host("acme", "/desk/pages/new"))
        visit.page.fill("#title", "Not yet")
        visit.page.fill("#body", "Some *soft* words")
        visit.page.click("button >> text=Preview")
        expect(visit.page.locator("[data-body] em")).to_have_text("soft")
        expect(visit.page.locator("#title")).to_have_value("Not yet")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_never_scrolls_sideways(storyfront: Storyfront, window: Windows, scheme: str) -> None:
    """At 390 pixels every page, of visitors and of the desk, fits the width."""
    with window(viewport={"width": 390, "height": 844}, color_scheme=scheme) as visit:
        pages = ["", "about", "stories", "how-this-site-works", "search?q=site", ".tenantry/sign-in"]
        desk = ["desk", "desk/pages/new", "desk/pages/1", "desk/pages/1/history", "desk/media", "desk/settings"]
        wide = [path for path in pages if _too_wide(visit, storyfront.host("acme", f"/{path}"))]
        visit.sign_in(storyfront.host("acme"), *storyfront.admins["acme"])
        wide += [path for path in desk if _too_wide(visit, storyfront.host("acme", f"/{path}"))]
        wide += ["front"] if _too_wide(visit, f"http://localhost:{storyfront.port}/") else []
        assert wide == []


def _too_wide(visit: Visit, address: str) -> bool:
    visit.page.goto(address)
    return bool(visit.page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def test_the_platforms_own_page_names_the_sites(storyfront: Storyfront, visit: Visit) -> None:
    """The bare domain lists the sites, each leading to its own host."""
    visit.page.goto(f"http://localhost:{storyfront.port}/")
    visit.page.click(".sites >> text=Acme & Söhne")
    visit.page.wait_for_url(storyfront.host("acme"))


@pytest.mark.parametrize(
    "trap",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg onload=alert(1)>",
        "<a href=' javascript:alert(1)'>x</a>",
        "<a href='java\nscript:alert(1)'>x</a>",
        "[x](javascript:alert(1))",
        "![x](data:text/html;base64,PHNjcmlwdD4=)",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
        "<form action=/desk/pages/1/remove method=post><button>x</button></form>",
        "<style>body{display:none}</style>",
        "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    ],
)
def test_nothing_in_markdown_can_run(trap: str) -> None:
    """Markdown keeps words and pictures, and nothing that runs, styles or sends."""
    html = text.render(f"before {trap} after\n\n{trap}").lower()
    assert "before" in html
    for part in ("<script", "onerror=", "onload=", 'href="java', "<iframe", "<form", "<style", "<svg", '="data:'):
        assert part not in html


def test_addresses_in_markdown_stay_below_the_site_and_pictures_on_it() -> None:
    """Relative addresses are taken from the site's root; a picture of another host is left out."""
    html = text.render(
        "[a](about) [b](/about) [c](https://example.org/x) ![d](media/d.png) ![e](//example.org/e.png)", "/t/acme"
    )
    assert html.count('href="/t/acme/about"') == 2
    assert 'href="https://example.org/x"' in html
    assert 'src="/t/acme/media/d.png"' in html
    assert "example.org/e.png" not in html


@pytest.mark.parametrize("look", sorted(LOOKS))
@pytest.mark.parametrize("accent", ["#ffff00", "#000000", "#ffffff", "#2b4bf2", "#ff69b4", "#808080", "#00ff88"])
def test_text_in_any_colour_can_be_read(look: str, accent: str) -> None:
    """Whatever colour a site has, its shades reach a contrast of 4.5 by day and by night (WCAG 2.2, 1.4.3)."""
    for paper, ink in zip(LOOKS[look].paper, LOOKS[look].ink, strict=True):
        shade = colour.readable(accent, colour.mix(paper, ink, 0.06), 4.6)
        assert colour.contrast(shade, paper) >= colour.CONTRAST
        assert colour.contrast(colour.ink_on(shade), shade) >= colour.CONTRAST
        assert colour.contrast(ink, paper) >= 7
    assert colour.contrast(colour.ink_on(accent), accent) >= colour.CONTRAST


def test_a_site_has_no_more_pages_than_its_value_allows(storyfront: Storyfront, visit: Visit) -> None:
    """`max_pages` is a value of the tenant; a tenant made while the server runs is served without a restart."""
    storyfront.create("small", "Small", "blog", "--set", "max_pages=5")
    home = storyfront.host("small")
    storyfront.wait_for(home)
    visit.sign_in(home, *storyfront.admins["small"])
    visit.page.goto(home + "desk/pages/new")
    visit.page.fill("#title", "One too many")
    visit.page.click("text=Publish")
    expect(visit.page.locator(".fault")).to_contain_text("5 pages")
    assert [fault for fault in visit.faults if "403" not in fault] == []
    visit.faults.clear()
    assert storyfront.get(home + "one-too-many").status_code == 404

"""A newcomer's first minutes, as the README tells them."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from newcomer import started, walk
from terminals import family, gone

if TYPE_CHECKING:
    from conftest import Visit

pytestmark = pytest.mark.browser


def test_a_newcomer_has_a_tenant_in_minutes(tmp_path: Path, visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    """From `serve` over the printed link to a tenant of her own, without another command; Ctrl-C ends it all."""
    began = time.monotonic()
    with started(tmp_path) as shown:
        link = shown.link()
        ready = time.monotonic() - began
        tenant = walk(visit.page, link)
        with capsys.disabled():
            print(f" [{ready:.0f} s until the link, {time.monotonic() - began:.0f} s until the tenant is open]", end="")
        assert tenant.url == f"http://bakery.localhost:{shown.port}/"
        assert f"http://acme.localhost:{shown.port}/" in shown.text
        visit.page.goto(link)
        expect(visit.page.get_by_role("alert")).to_contain_text("used before")
        pids = family(shown.process.pid)
        assert shown.tell(signal.SIGINT) == 0
        assert gone(pids)
        assert "Traceback" not in shown.text
    refused = [fault for fault in visit.faults if "410" in fault]
    assert len(refused) == 1  # what a browser itself says of a link that is void
    visit.faults.remove(refused[0])

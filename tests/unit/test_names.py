"""The rules of slugs and hosts, for any input."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import InvalidHost, InvalidSlug, PathEscape, ReservedSlug
from tenantry.model import RESERVED, check_path, check_slug, normalise_host

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


@given(st.text(max_size=80) | st.from_regex(r"[a-z0-9-]{1,70}", fullmatch=True))
def test_a_slug_is_a_label_or_refused(slug: str) -> None:
    """Whatever passes is one DNS label without capitals, double hyphens and reserved words; nothing crashes."""
    try:
        assert check_slug(slug) == slug
    except (InvalidSlug, ReservedSlug):
        return
    assert re.fullmatch(r"(?!.*--)(?!-)[a-z0-9-]{1,63}(?<!-)", slug)
    assert slug not in RESERVED
    assert normalise_host(f"{slug}.example.com") == f"{slug}.example.com"


@given(st.sampled_from(sorted(RESERVED)))
def test_reserved(slug: str) -> None:
    """Nobody can take a reserved slug."""
    with pytest.raises(ReservedSlug):
        check_slug(slug)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_a_host_is_normal_or_refused(host: str) -> None:
    """Whatever passes is plain ASCII in lower case, and normalising it again changes nothing."""
    try:
        normal = normalise_host(host)
    except InvalidHost:
        return
    assert re.fullmatch(r"[a-z0-9._-]{1,253}", normal)
    assert normalise_host(normal) == normal


@given(HOST, st.data())
def test_spellings_of_one_host(host: str, data: st.DataObject) -> None:
    """Capitals, a dot at the end and a port are the same host."""
    capitals = data.draw(st.lists(st.booleans(), min_size=len(host), max_size=len(host)))
    spelled = "".join(c.upper() if up else c for c, up in zip(host, capitals, strict=True))
    spelled += data.draw(st.sampled_from(["", "."])) + data.draw(st.sampled_from(["", ":1", ":8000", ":65535"]))
    assert normalise_host(spelled) == host


@given(HOST, HOST)
def test_two_hosts_stay_two(one: str, other: str) -> None:
    """Hosts that differ are never normalised into one another."""
    assert (normalise_host(one) == normalise_host(other)) == (one == other)


@given(st.text(max_size=60) | st.lists(st.sampled_from(["..", ".", "", "a", "\0", "\\"]), max_size=5).map("/".join))
def test_a_path_stays_below(path: str) -> None:
    """Whatever passes has only plain parts; nothing crashes."""
    try:
        assert check_path(path) == path
    except PathEscape:
        return
    assert not {"", ".", ".."} & set(path.split("/"))

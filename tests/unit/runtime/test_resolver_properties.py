"""The resolver, for any input and any order of changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from joserfc.jwk import ECKey

from tenantry.errors import TenantNotServed, TenantryError
from tenantry.model import Changes, Environment, Loaded, Status, Tenant, new_id, normalise_host
from tenantry.runtime.resolver import Request, Resolver, location
from tenantry.runtime.settings import Jwt, Settings
from tenantry.runtime.table import Table

DOMAIN = "example.com"
KEY = ECKey.generate_key("P-256")
SLUGS = ("acme", "other", "third", "xn", "a1")
RULES = (("host", "path"), ("path", "host"), ("host",), ("path",), ("host", "jwt"), ("jwt", "path", "host"))


def environment(slug: str, status: Status = Status.ACTIVE, **more: Any) -> Environment:
    tenant = Tenant(new_id(), slug, slug, "site", None, status, former=more.pop("slugs", ()))
    return Environment(new_id(), "production", tenant, slug, hostnames=(f"{slug}.{DOMAIN}",), **more)


KNOWN = [environment(slug) for slug in SLUGS] + [
    environment("shut", Status.SUSPENDED),
    environment("new", former=("old.example.com",), slugs=("old",)),
]


def resolver(by: Any = ("host", "path")) -> Resolver:
    made = Resolver(Settings(DOMAIN, Path("/nowhere"), by=by, jwt=Jwt({"keys": [KEY.as_dict(private=False)]})))
    made.table = Table(Loaded(1, KNOWN))
    return made


NAMES = st.sampled_from([*SLUGS, "shut", "new", "old", "nobody", ""])
HOSTS = (
    st.binary(max_size=60)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.builds(
        lambda name, middle, end: f"{name}{middle}{end}".encode(),
        NAMES,
        st.sampled_from(
            [".example.com", ".EXAMPLE.com.", "example.com", ".example.com:80", "@a.example.com", " ", "。example。com"]
        ),
        st.sampled_from(["", ".", ":8000", ":", " ", ":80:80", "\0", "/"]),
    )
)
PATHS = st.text(max_size=40) | st.builds(
    lambda name, rest: f"/t/{name}{rest}",
    NAMES,
    st.sampled_from(["", "/", "//", "/x", "/../other/", "%2f", "\n"]) | st.text(),
)


@given(st.lists(HOSTS, min_size=0, max_size=2), PATHS, st.sampled_from(RULES), st.none() | st.binary(max_size=60))
@example([b"acme.example.com"], "/t/other/", ("host", "path"), None)
@example([b"acme.example.com"], "/t/other/", ("path", "host"), None)
@settings(max_examples=600, deadline=None)
def test_one_tenant_or_an_error_of_ours(hosts: list[bytes], path: str, by: Any, token: bytes | None) -> None:
    """Any request leads to exactly one served tenant, to the platform, or to an error of ours; the same every time."""
    request = Request(tuple(hosts), path, () if token is None else (b"Bearer " + token,))
    made = resolver(by)
    answers = []
    for attempt in (made, made, resolver(by)):  # with and without remembered spellings
        try:
            found = attempt.resolve(request)
        except TenantryError as error:
            answers.append(error.code)
            continue
        answers.append(found.environment.id if found.environment else None)
        assert found.environment is None or found.environment.tenant.status.served
        if found.redirect_host or found.redirect_path:
            target = location(
                found, scheme="http", host=hosts[0], outer="", raw_path=path.encode("utf-8", "replace"), query=b""
            )
            assert target.isascii()
            assert target.isprintable()
            assert not target.startswith("//")
    assert len(set(answers)) == 1
    quick = made.quick(hosts[0]) if len(hosts) == 1 else None
    assert quick is None or quick.id == answers[0]


@given(st.sampled_from(KNOWN), st.data())
def test_spellings_lead_to_one_tenant(known: Environment, data: st.DataObject) -> None:
    """Hosts that are normalised alike lead to the same tenant."""
    made = resolver(("host",))
    name = known.hostnames[0]
    spelled = "".join(
        data.draw(st.sampled_from([c, c.upper(), chr(ord(c) + 0xFEE0) if c.isalpha() else c])) for c in name
    )
    spelled += data.draw(st.sampled_from(["", ".", ":80"]))
    assert normalise_host(spelled) == name
    for host in (spelled, name):
        request = Request((host.encode(),))
        if known.tenant.status.served:
            assert made.resolve(request).environment is known
            continue
        with pytest.raises(TenantNotServed) as refused:
            made.resolve(request)
        assert refused.value.details["tenant"] is known.tenant


@given(st.text(max_size=20), st.text(max_size=10))
def test_a_redirect_keeps_path_and_query(rest: str, query: str) -> None:
    """What stood below the former slug stands below the new one."""
    found = resolver().resolve(Request((b"example.com",), f"/t/old/{rest}"))
    raw = query.encode()
    target = location(found, scheme="http", host=b"example.com", outer="", raw_path=b"", query=raw)
    path, mark, kept = target.partition("?")
    assert unquote(path) == f"/t/new/{rest}"
    assert bool(mark) == bool(raw)
    assert unquote(kept) == unquote(query)


class Changing(RuleBasedStateMachine):
    """Tenants come, go, are renamed and suspended; a plain list of them says what the table has to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.model: dict[str, Environment] = {}
        self.seq = 0

    def tell(self, *ids: str) -> None:
        self.seq += 1
        found = [self.model[tenant] for tenant in ids if tenant in self.model]
        self.table.apply(Changes(self.seq, frozenset(ids), found))

    def free(self, slug: str) -> bool:
        """Whether nobody has the slug, now or formerly, as the registry sees to."""
        return all(slug != e.tenant.slug and slug not in e.tenant.former for e in self.model.values())

    @rule(slug=st.sampled_from(SLUGS), status=st.sampled_from(Status))
    def create(self, slug: str, status: Status) -> None:
        if self.free(slug):
            new = environment(slug, status)
            self.model[new.tenant.id] = new
            self.tell(new.tenant.id)

    @rule(data=st.data(), slug=st.sampled_from(SLUGS), keep=st.booleans())
    def rename(self, data: Any, slug: str, keep: bool) -> None:
        if self.model and self.free(slug):
            old = data.draw(st.sampled_from(list(self.model.values())))
            former = (old.tenant.slug,) if keep else ()
            tenant = dataclasses.replace(old.tenant, slug=slug, former=former)
            hosts = tuple(f"{name}.{DOMAIN}" for name in former)
            new = dataclasses.replace(old, tenant=tenant, hostnames=(f"{slug}.{DOMAIN}",), former=hosts)
            self.model[tenant.id] = new
            self.tell(tenant.id)

    @rule(data=st.data(), status=st.sampled_from(Status))
    def move(self, data: Any, status: Status) -> None:
        if self.model:
            old = data.draw(st.sampled_from(list(self.model.values())))
            self.model[old.tenant.id] = dataclasses.replace(old, tenant=dataclasses.replace(old.tenant, status=status))
            self.tell(old.tenant.id)

    @rule(data=st.data())
    def destroy_and_reuse(self, data: Any) -> None:
        """One change takes a tenant away and gives its names to another."""
        if self.model:
            old = self.model.pop(data.draw(st.sampled_from(list(self.model))))
            new = environment(old.tenant.slug)
            self.model[new.tenant.id] = new
            self.tell(old.tenant.id, new.tenant.id)

    @rule(data=st.data())
    def destroy(self, data: Any) -> None:
        if self.model:
            tenant = data.draw(st.sampled_from(list(self.model)))
            del self.model[tenant]
            self.tell(tenant)

    @invariant()
    def same_as_loaded(self) -> None:
        """Following the changes comes to the same as loading everything anew."""
        fresh = Table(Loaded(self.seq, list(self.model.values())))
        for part in ("live", "closed", "moved", "tenants", "slugs", "was"):
            assert getattr(self.table, part) == getattr(fresh, part), part


TestChanging = Changing.TestCase

"""Which tenant a request is for."""

from __future__ import annotations

import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from tenantry.errors import (
    ConfigError,
    InvalidHost,
    InvalidToken,
    TenantNotFound,
    TenantNotServed,
    TenantryError,
    UnknownHost,
)
from tenantry.model import Changes, Environment, Loaded, Status
from tenantry.runtime.resolver import Request, Resolver, location
from tenantry.runtime.settings import Jwt
from tenantry.runtime.table import Table


@pytest.fixture
def resolver(world: Any) -> Any:
    """Makes a resolver that knows the world's tenants."""

    def make(**changes: Any) -> Resolver:
        resolver = Resolver(world.settings(**changes))
        environments = [found for environments in world.feed.tenants.values() for found in environments]
        resolver.table = Table(Loaded(world.feed.seq, environments))
        return resolver

    return make


def ask(resolver: Resolver, host: str | bytes, path: str = "/", token: str | None = None) -> Any:
    hosts = (host if isinstance(host, bytes) else host.encode(),)
    authorizations = () if token is None else (f"Bearer {token}".encode(),)
    return resolver.resolve(Request(hosts, path, authorizations))


@pytest.mark.parametrize(
    "host",
    [
        "acme.example.com",
        "ACME.Example.COM",
        "acme.example.com:8000",
        "acme.example.com.",
        "acme.example.com.:443",
        "ａｃｍｅ.example.com",
    ],
)
def test_spellings_of_a_host(world: Any, resolver: Any, host: str) -> None:
    """Case, port, trailing dot and full-width letters make no difference."""
    acme = world.tenant("acme")
    world.tenant("other")
    made = resolver()
    assert ask(made, host).environment is acme
    assert ask(made, host).environment is acme
    assert made.quick(host.encode()) is acme


def test_international_host(world: Any, resolver: Any) -> None:
    """An international hostname is found in Unicode and in ASCII."""
    acme = world.tenant("acme", hostnames=("xn--sdpol-kva.example",))
    assert ask(resolver(), "SÜDPOL.example").environment is acme
    assert ask(resolver(), "xn--sdpol-kva.example").environment is acme


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b" acme.example.com",
        b"acme.example.com ",
        b"evil@acme.example.com",
        b"acme.example.com/x",
        b"a..b",
        b"-a.b",
        b"acme.example.com:port",
        b"acme.example.com:123456",
        b"\xff\xfe",
        b"acme.example.com\0",
        b"a" * 5000,
        b"[::1]",
    ],
)
def test_malformed_hosts(world: Any, resolver: Any, host: bytes) -> None:
    """What is no host name is refused, never repaired into one."""
    world.tenant("acme")
    with pytest.raises(InvalidHost):
        ask(resolver(), host)


@pytest.mark.parametrize("hosts", [(), (b"acme.example.com", b"acme.example.com"), (b"acme.example.com", b"x.y")])
def test_host_headers_are_one(world: Any, resolver: Any, hosts: tuple[bytes, ...]) -> None:
    """A request without a Host header, or with two, is refused even where they agree."""
    world.tenant("acme")
    with pytest.raises(InvalidHost):
        resolver().resolve(Request(hosts))


def test_unknown_host(world: Any, resolver: Any) -> None:
    """There is no default tenant, neither for a strange host nor for a slug that nobody has."""
    world.tenant("acme")
    for host in ("nobody.example.com", "example.org", "acme.example.com.evil.org", "127.0.0.1"):
        with pytest.raises(UnknownHost):
            ask(resolver(), host)


@pytest.mark.parametrize("status", [status for status in Status if not status.served])
def test_not_served(world: Any, resolver: Any, status: Status) -> None:
    """A tenant in such a status is refused by every rule."""
    world.tenant("acme", status=status)
    for host, path in (("acme.example.com", "/"), ("example.com", "/t/acme/")):
        with pytest.raises(TenantNotServed) as caught:
            ask(resolver(), host, path)
        assert caught.value.details["tenant"].slug == "acme"
    assert resolver().quick(b"acme.example.com") is None
    with pytest.raises(TenantNotServed):
        ask(resolver(single="acme"), "any.where")


def test_path_rule(world: Any, resolver: Any) -> None:
    """Below the platform's domain the path names the tenant and gives up its prefix."""
    acme = world.tenant("acme")
    found = ask(resolver(), "example.com:8000", "/t/acme/pages/1")
    assert (found.environment, found.prefix, found.rule) == (acme, "/t/acme", "path")
    assert ask(resolver(), "example.com", "/t/acme").redirect_path == "/t/acme/"
    assert ask(resolver(), "example.com", "/tea").environment is None
    for slug in ("nobody", "ACME", "acme\n", "%61cme"):
        with pytest.raises(TenantNotFound):
            ask(resolver(), "example.com", f"/t/{slug}/")


def test_path_rule_elsewhere(world: Any, resolver: Any) -> None:
    """A path names no tenant at a host that is none of the platform's."""
    world.tenant("acme")
    with pytest.raises(UnknownHost):
        ask(resolver(), "evil.org", "/t/acme/")
    assert ask(resolver(by=("path",)), "any.where", "/t/acme/").environment.tenant.slug == "acme"


def test_order_of_rules(world: Any, resolver: Any) -> None:
    """Where host and path name two tenants, the rule that comes first decides."""
    acme, other = world.tenant("acme"), world.tenant("other")
    assert ask(resolver(by=("host", "path")), "acme.example.com", "/t/other/").environment is acme
    assert ask(resolver(by=("path", "host")), "acme.example.com", "/t/other/").environment is other
    assert resolver(by=("path", "host")).quick(b"acme.example.com") is None


def test_single_tenant(world: Any, resolver: Any) -> None:
    """A single-tenant installation serves its tenant at every host and path."""
    acme = world.tenant("acme")
    world.tenant("other")
    for host in ("other.example.com", "localhost", ""):
        assert ask(resolver(single="acme"), host, "/t/other/").environment is acme
    with pytest.raises(TenantNotFound):
        ask(resolver(single="gone"), "localhost")


def test_former_names(world: Any, resolver: Any) -> None:
    """A former hostname leads to the canonical one, a former slug to the new path; the rest of the address stays."""
    world.tenant("new", hostnames=("www.new.org", "new.example.com"))
    acme = next(iter(world.feed.tenants.values()))[0]
    world.change(acme, former_hosts=("old.example.com",))
    made = resolver()
    found = ask(made, "OLD.example.com:8443", "/a b")
    where = {"scheme": "https", "host": b"OLD.example.com:8443", "outer": "", "query": b"q=1&r=%20"}
    assert location(found, raw_path=b"/a%20b", **where) == "https://www.new.org:8443/a%20b?q=1&r=%20"
    assert location(found, raw_path=b"//evil.org", **where).startswith("https://www.new.org:8443//evil.org")


def test_former_slug(world: Any, resolver: Any) -> None:
    """A former slug in a path leads to the new one."""
    acme = world.tenant("new")
    table = resolver()
    table.table.was["old"] = (acme,)
    found = ask(table, "example.com", "/t/old/ä/x")
    facts = {"scheme": "http", "host": b"example.com", "raw_path": b"", "query": b"q=1"}
    assert location(found, outer="", **facts) == "/t/new/%C3%A4/x?q=1"
    assert location(found, outer="/app", **facts) == "/app/t/new/%C3%A4/x?q=1"
    acme = world.tenant("old")
    assert ask(resolver(), "example.com", "/t/old/x").environment is acme


def test_gate(world: Any, resolver: Any) -> None:
    """A tenant that a gate refuses is refused with the gate's own error, and only this one."""
    acme, other = world.tenant("acme"), world.tenant("other")
    made = resolver()
    made.refused[acme.tenant.id] = UnknownHost("Over quota.")
    assert made.quick(b"acme.example.com") is None
    with pytest.raises(UnknownHost, match="Over quota"):
        ask(made, "acme.example.com")
    assert ask(made, "other.example.com").environment is other


def test_strangers_fill_no_memory(world: Any, resolver: Any) -> None:
    """Only spellings of hosts that are served are remembered."""
    world.tenant("acme")
    made = resolver()
    for number in range(50):
        with pytest.raises(TenantryError):
            ask(made, f"X{number}.example.com")
    assert made._spellings == {}
    ask(made, "Acme.example.com")
    assert list(made._spellings) == [b"Acme.example.com"]


# --- changes ------------------------------------------------------------------------------------------------------


def test_a_change_replaces_a_tenant(world: Any) -> None:
    """After a rename only the new names lead to the tenant, apart from the former ones it kept."""
    acme = world.tenant("acme")
    table = Table(Loaded(1, [acme]))
    new = world.change(acme, slug="neo", hostnames=("neo.example.com",), former_hosts=("acme.example.com",))
    table.apply(Changes(2, frozenset({acme.tenant.id}), [new]))
    assert list(table.live) == [b"neo.example.com"]
    assert list(table.moved) == [b"acme.example.com"]
    assert set(table.slugs) == {"neo"}
    table.apply(Changes(3, frozenset({acme.tenant.id}), []))
    assert not any((table.live, table.moved, table.slugs, table.tenants, table.was, table.closed))
    assert table.seq == 3


def test_a_name_that_moves_to_another_tenant(world: Any) -> None:
    """One change can take a hostname and a slug from a tenant and give them to another."""
    acme, other = world.tenant("acme"), world.tenant("other")
    table = Table(Loaded(1, [acme, other]))
    freed = world.change(acme, slug="left", hostnames=("left.example.com",))
    taker = world.change(other, slug="acme", hostnames=("acme.example.com",))
    table.apply(Changes(2, frozenset({acme.tenant.id, other.tenant.id}), [taker, freed]))
    assert table.live == {b"acme.example.com": taker, b"left.example.com": freed}
    assert table.slugs == {"acme": (taker,), "left": (freed,)}


def test_the_same_again_changes_nothing(world: Any) -> None:
    """A change that brings the very same objects keeps them."""
    acme = world.tenant("acme")
    table = Table(Loaded(1, [acme]))
    table.apply(Changes(2, frozenset({acme.tenant.id}), [acme]))
    assert table.live == {b"acme.example.com": acme}
    assert table.slugs["acme"] == (acme,)


# --- tokens -------------------------------------------------------------------------------------------------------

KEY = ECKey.generate_key("P-256", {"kid": "1"})


def jwt_settings(**changes: Any) -> dict[str, Any]:
    jwt = Jwt({"keys": [KEY.as_dict(private=False)]}, issuer="https://login.example.com", audience="site", **changes)
    return {"by": ("host", "jwt"), "jwt": jwt}


def make_token(header: dict[str, Any] | None = None, key: Any = KEY, **claims: Any) -> str:
    full = {"iss": "https://login.example.com", "aud": "site", "exp": int(time.time()) + 600} | claims
    claims = {name: value for name, value in full.items() if value is not None}
    header = header or {"alg": "ES256", "kid": "1"}
    return jwt.encode(header, claims, key, algorithms=[header["alg"]])


def test_token_names_the_tenant(world: Any, resolver: Any) -> None:
    """A verified claim names a tenant by id or slug, at the platform's domain and at a host that names none."""
    acme: Environment = world.tenant("acme")
    made = resolver(**jwt_settings())
    for name in ("acme", acme.tenant.id):
        for host in ("example.com", "api.example.com", "acme.example.com"):
            assert ask(made, host, token=make_token(tenant_id=name)).environment is acme
    assert ask(made, "example.com").environment is None


def test_token_of_another_tenant(world: Any, resolver: Any) -> None:
    """A token of one tenant at the address of another is refused; neither wins."""
    world.tenant("acme")
    other = world.tenant("other")
    for by in (("host", "jwt"), ("jwt", "host"), ("path", "jwt"), ("jwt", "path")):
        made = resolver(**jwt_settings() | {"by": by})
        host, path = ("acme.example.com", "/") if "host" in by else ("example.com", "/t/acme/")
        if by[0] == "jwt":
            assert ask(made, "example.com", token=make_token(tenant_id="other")).environment is other
        with pytest.raises(InvalidToken):
            ask(made, host, path, make_token(tenant_id="other"))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"nbf": int(time.time()) + 6000},
        {"iss": "https://evil.org"},
        {"iss": None},
        {"aud": "elsewhere"},
        {"aud": None},
        {"tenant_id": "nobody"},
        {"tenant_id": None},
        {"tenant_id": ["acme"]},
        {"tenant_id": {"a": 1}},
    ],
)
def test_wrong_claims(world: Any, resolver: Any, claims: dict[str, Any]) -> None:
    """A token that is too old, too early, from or for somebody else, or names nobody is refused."""
    world.tenant("acme")
    made = resolver(**jwt_settings())
    with pytest.raises(InvalidToken):
        ask(made, "example.com", token=make_token(**{"tenant_id": "acme"} | claims))


def test_forged_tokens(world: Any, resolver: Any) -> None:
    """A token is refused when unsigned, signed by another key, or with the public key as a shared secret."""
    world.tenant("acme")
    made = resolver(**jwt_settings())
    good = make_token(tenant_id="acme")
    stranger = ECKey.generate_key("P-256", {"kid": "1"})
    secret = OctKey.import_key({"kty": "oct", "k": KEY.as_dict()["x"], "kid": "1"})
    header, payload, _ = good.split(".")
    forged = [
        make_token(key=stranger, tenant_id="acme"),
        make_token({"alg": "HS256", "kid": "1"}, secret, tenant_id="acme"),
        "eyJhbGciOiJub25lIn0." + payload + ".",
        f"{header}.{payload}.",
        good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"),
        make_token({"alg": "ES256", "kid": "2"}, ECKey.generate_key("P-256"), tenant_id="acme"),
        "",
        "x",
        "a.b.c",
        "x" * 9000,
    ]
    for token in forged:
        with pytest.raises(InvalidToken):
            ask(made, "example.com", token=token)
    with pytest.raises(InvalidToken):
        made.resolve(Request((b"example.com",), "/", (f"Bearer {good}".encode(),) * 2))
    assert ask(made, "example.com", token=good).environment.tenant.slug == "acme"


def test_slug_that_is_an_id(world: Any, resolver: Any) -> None:
    """A slug chosen to look like another tenant's id gains nothing: such a claim names nobody."""
    victim = world.tenant("acme")
    world.tenant(victim.tenant.id)
    with pytest.raises(InvalidToken):
        ask(resolver(**jwt_settings()), "example.com", token=make_token(tenant_id=victim.tenant.id))


def test_unsigned_tokens_cannot_be_configured(world: Any, resolver: Any) -> None:
    """A configuration that allows tokens without a signature, or has no keys, is refused."""
    world.tenant("acme")
    with pytest.raises(ConfigError):
        ask(resolver(**jwt_settings() | {"jwt": Jwt({"keys": []})}), "example.com", token=make_token(tenant_id="acme"))
    with pytest.raises(ConfigError):
        ask(resolver(**jwt_settings(algorithms=("none",))), "example.com", token=make_token(tenant_id="acme"))

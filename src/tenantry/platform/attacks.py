"""Attacks on the runtime, by an application's visitors and by code in it: requests, sessions, cache, files, keys."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any, Final

from tenantry import credentials
from tenantry.application import open_key, runtime_of, settings
from tenantry.config import Config
from tenantry.context import tenant_context, without_tenant
from tenantry.errors import ConfigError, TenantNotServed, TenantryError
from tenantry.model import Attempt, Breach, Environment, Untried
from tenantry.platform import leftovers
from tenantry.registry import Vault
from tenantry.resources import canary, rows_tables
from tenantry.runtime import Runtime, TenantMiddleware

REQUESTS: Final = "requests"
SESSIONS: Final = "sessions"
CACHE: Final = "cache"
FILES: Final = "files"
KEYS: Final = "keys"

SECONDS: Final = 30.0
"""How long one request may take."""

TABLES: Final = {"rows": rows_tables.TRACE}
"""The tables of canaries that are not called as everywhere else, by kind."""

log: Final = logging.getLogger("tenantry.verify")

Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


@asynccontextmanager
async def outdoors(config: Config, vault: Vault) -> AsyncIterator[Visitor]:
    """The application's side of a platform: its own application where `verify.app` names it, else a plain one.

    Raises `ConfigError`, `RegistryUnavailable`.
    """
    if config.verify.app is None:
        runtime = runtime_of(config, vault, dataclasses.replace(settings(config), snapshot=None))
        app: Asgi = TenantMiddleware(_nothing, runtime)
    else:
        runtime, app = _application(config, config.verify.app)
    mine = not runtime.started
    await runtime.start(prove=False)  # what is weak is to be found, and told with all else
    try:
        yield Visitor(runtime, app, vault)
    finally:
        if mine:
            await runtime.stop()


def _application(config: Config, reference: str) -> tuple[Runtime, Asgi]:
    """The platform's own application, and the runtime that it connected."""
    from tenantry.runtime.runtime import connected

    root = str(config.root)
    if root not in sys.path:
        sys.path.insert(0, root)
    module, _, name = reference.partition(":")
    try:
        return_app: Asgi = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"verify.app: '{reference}' cannot be imported ({error}).",
            remedy='Write "package.module:name", importable from the directory of tenantry.toml.',
        ) from error
    return connected(), return_app


async def _nothing(scope: Scope, receive: Any, send: Any) -> None:
    """An application that answers nothing: whose request it was, the runtime has counted."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Visitor:
    """Sends requests to an application, and uses its runtime as its own code would."""

    def __init__(self, runtime: Runtime, app: Asgi, vault: Vault) -> None:
        self.runtime = runtime
        self._app = app
        self._vault = vault
        self._alone = asyncio.Lock()  # else what is left on a connection is overwritten before anybody looks
        self._turn = asyncio.Lock()  # whom a request reached is told by a counter, so there is one at a time

    async def attack(self, env: Environment, other: Environment) -> list[Attempt]:
        """Everything that was tried from one environment on another."""
        known = self.runtime.resolver.table.current
        mine, theirs = known(env), known(other)
        if mine is None or theirs is None:
            return [Untried(REQUESTS, "another tenant", "the runtime does not know both tenants, so one is gone")]
        found = [attempt async for attempt in self._requests(mine, theirs)]
        found += self._tokens_of_others(mine, theirs)
        found += [attempt async for attempt in self._account(mine, theirs)]
        found += [attempt async for attempt in self._sessions(mine, theirs)]
        return [*found, *self._cache(mine, theirs), *self._files(mine, theirs), *self._keys(mine, theirs)]

    async def seek(self, env: Environment, trace: str) -> Mapping[str, list[str]]:
        """The canaries that this application's sessions of an environment see, by resource."""
        found: dict[str, list[str]] = {}
        mine = self.runtime.resolver.table.current(env)
        if mine is None or not mine.tenant.status.served:
            return found
        for name in self._databases(mine):
            place = mine.place(name)
            table = TABLES.get(place.kind, f"{place.prefix}{canary.TABLE}") if place else canary.TABLE
            with tenant_context(env):
                try:
                    found[name] = [one for one in await self._canaries(name, table) if one.startswith(trace)]
                except Exception:  # who asks knows what should have been seen
                    log.debug("no canary is seen in %s of %s", name, env.tenant.slug, exc_info=True)
                    found[name] = []
        return found

    async def _canaries(self, name: str, table: str) -> list[str]:
        from sqlalchemy import text

        async with self.runtime.session(name) as session:
            rows = await session.execute(text(f"SELECT canary FROM {table}"))  # noqa: S608 -- a constant
            return [str(row[0]) for row in rows]

    def _databases(self, env: Environment) -> list[str]:
        from tenantry.runtime.databases import KINDS

        return [place.name for place in env.places if place.kind in KINDS]

    # --- requests -------------------------------------------------------------------------------------------------

    async def _requests(self, env: Environment, other: Environment) -> AsyncIterator[Attempt]:
        """Requests of one tenant's visitors that pretend to be another's."""
        mine, theirs = self._host(env), self._host(other)
        if not env.tenant.status.served:
            served = await self._reached([(b"host", mine)])
            yield _judged(REQUESTS, "tenant that is not served", served, "its request was served")
            return
        if "host" in self.runtime.settings.by:
            served = await self._reached([(b"host", mine)])
            strangers = served - {env.tenant.id}
            yield _judged(REQUESTS, "own hostname", strangers, f"{mine.decode()} leads to another tenant")
            for what, headers in _forged_headers(mine, theirs):
                served = await self._reached(headers)
                yield _judged(REQUESTS, what, served & {other.tenant.id}, f"a request to {mine.decode()} reached it")
            for host in _odd_hosts(mine, theirs):
                served = await self._reached([(b"host", host)])
                yield _judged(REQUESTS, "malformed Host", served, f"the host {host!r} reached a tenant")
        for path in self._climbing(env, other):
            served = await self._reached([(b"host", self.runtime.settings.domain.encode())], path)
            yield _judged(REQUESTS, "path traversal", served & {other.tenant.id}, f"the path {path} reached it")
        for what, token in self._forged_tokens(other):
            served = await self._reached([(b"host", mine), (b"authorization", b"Bearer " + token)])
            bare = await self._reached(
                [(b"host", self.runtime.settings.domain.encode()), (b"authorization", b"Bearer " + token)]
            )
            yield _judged(REQUESTS, what, (served | bare) & {other.tenant.id}, "a forged token was believed")

    def _host(self, env: Environment) -> bytes:
        return (env.hostnames[0] if env.hostnames else self.runtime.settings.domain).encode()

    def _climbing(self, env: Environment, other: Environment) -> Iterator[str]:
        """Paths that name one tenant and climb to another."""
        before, _, after = self.runtime.settings.path.partition("{slug}")
        mine, theirs = env.tenant.slug, other.tenant.slug
        for climb in ("..", "%2e%2e", "..%2f", "..;", ".%00."):
            yield f"{before}{mine}/{climb}/{theirs}{after}"
        yield f"{before}{mine}%2f..%2f{theirs}{after}"
        yield f"/x{before}{theirs}{after}"
        yield f"{before}{mine}\\..\\{theirs}{after}"

    def _forged_tokens(self, other: Environment) -> Iterator[tuple[str, bytes]]:
        """Tokens that name the other tenant and were signed by nobody."""
        jwt = self.runtime.settings.jwt
        claims: dict[str, Any] = {(jwt.claim if jwt else "tenant_id"): other.tenant.id, "exp": int(time.time()) + 600}
        if jwt:
            claims |= {key: value for key, value in (("iss", jwt.issuer), ("aud", jwt.audience)) if value is not None}
        public: dict[str, Any] = next(iter(jwt.keys.get("keys", ())), {}) if jwt else {}
        kid = {"kid": public["kid"]} if "kid" in public else {}
        yield "token without a signature", _token({"alg": "none", **kid}, claims, lambda _: b"")
        for text in (json.dumps(public), json.dumps(public, separators=(",", ":")), str(public.get("n", "x"))):
            yield (
                "token signed with the public key",
                _token({"alg": "HS256", **kid}, claims, partial(_keyed, text.encode())),
            )
        yield (
            "token with a made-up signature",
            _token({"alg": "ES256", **kid}, claims, lambda _: secrets.token_bytes(64)),
        )

    async def _reached(self, headers: Sequence[tuple[bytes, bytes]], path: str = "/") -> set[str]:
        """The ids of the tenants that a request reached."""
        target = path if path != "/" else f"/.tenantry-verify-{secrets.token_hex(8)}"
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": target,
            "raw_path": target.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": list(headers),
            "client": ("192.0.2.1", 50000),  # RFC 5737: nobody's address, so no trusted proxy either
            "server": ("127.0.0.1", 443),
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_: Any) -> None:
            return

        async with self._turn:
            self.runtime.usage.take()
            with suppress(Exception):  # what the application makes of it is its own matter; whose it was, is counted
                async with asyncio.timeout(SECONDS):
                    await self._app(scope, receive, send)
            return set(self.runtime.usage.take())

    # --- sessions -------------------------------------------------------------------------------------------------

    def _tokens_of_others(self, env: Environment, other: Environment) -> Iterator[Attempt]:
        """Session cookies of another tenant, and such as its key would sign."""
        user = secrets.token_hex(8)
        sessions = self.runtime.sessions
        with tenant_context(other):
            issued = sessions.issue(user, secrets.token_urlsafe())
            forged = sessions._serializer(other).dumps([env.tenant.id, env.name, user, secrets.token_urlsafe()])
        cookies = {"another tenant's cookie": issued, "cookie signed with another tenant's key": forged}
        for what, value in cookies.items():
            with tenant_context(env):
                yield _kept(SESSIONS, what, partial(sessions.read, str(value)))
        with tenant_context(env):
            own = sessions.issue(user, secrets.token_urlsafe())
        with without_tenant():
            yield _kept(SESSIONS, "cookie without a tenant", lambda: sessions.read(own))

    async def _account(self, env: Environment, other: Environment) -> AsyncIterator[Attempt]:
        """A user of another tenant with a session that is good there, and what it opens here."""
        what = "another tenant's account"
        if self.runtime.settings.users.get(other.tenant.blueprint) is None:
            return
        if not (env.tenant.status.served and other.tenant.status.served):
            return
        try:
            with tenant_context(other):
                user = await self.runtime.accounts.first()
                if user is None:
                    return
                cookie = await self.runtime.accounts.begin(user, via="verify")
        except TenantryError as error:
            yield Untried(SESSIONS, what, str(error))
            return
        try:
            with tenant_context(env):
                found = await self.runtime.accounts.signed_in(self.runtime.sessions.read(cookie))
        except TenantryError as error:
            yield Attempt(SESSIONS, what, error.code)
        else:
            yield Breach(SESSIONS, what, f"'{found.login}' of {other.tenant.slug} is signed in")
        finally:  # where it is closed or gone by now, nobody has that cookie any more
            with tenant_context(other), contextlib.suppress(TenantNotServed):
                for one in await self.runtime.accounts.sessions(user.id):
                    if one.via == "verify":
                        await self.runtime.accounts.end_session(user.id, one.id)

    async def _sessions(self, env: Environment, other: Environment) -> AsyncIterator[Attempt]:
        """Database sessions: without a tenant, carried to another one, the engine behind one, and used in turn."""
        from sqlalchemy import text

        for name in self._databases(env):
            with without_tenant():
                yield await _refused(f"session without a tenant on {name}", self._open(name))
            if not env.tenant.status.served:
                with tenant_context(env):
                    yield await _refused(f"session of a tenant that is not served on {name}", self._open(name))
                continue
            try:
                with tenant_context(env):
                    async with self.runtime.session(name) as session:
                        await session.execute(text("SELECT 1"))
                        with tenant_context(other):
                            carried = session.execute(text("SELECT 2"))
                            yield await _refused(f"session carried to another tenant on {name}", carried)
                            yield await _refused(f"engine of another tenant on {name}", self._raw(session))
            except TenantryError as error:
                yield Untried(SESSIONS, f"session carried to another tenant on {name}", str(error))
                continue
            if other.tenant.status.served:
                async with self._alone:
                    left = [attempt async for attempt in self._reuse(env, other, name)]
                for attempt in left:
                    yield attempt

    async def _reuse(self, env: Environment, other: Environment, name: str) -> AsyncIterator[Attempt]:
        """A connection that comes back from the pool, or from a pooler behind it, with what another tenant left."""
        mark = secrets.token_hex(16)
        try:
            with tenant_context(other):
                async with self.runtime.session(name) as session:
                    await leftovers.leave(session, mark)
            with tenant_context(env):
                async with self.runtime.session(name) as session:
                    found = await leftovers.look(session, mark)
                    await leftovers.clear(session)
            with tenant_context(other):
                async with self.runtime.session(name) as session:
                    await leftovers.clear(session)
        except TenantryError as error:
            yield Untried(SESSIONS, f"what another tenant left on {name}", str(error))
            return
        shared = self.runtime.settings.shared.get((env.tenant.blueprint, name))
        promised = shared is None or shared.pooler is None  # a pooler of transactions keeps what sessions set
        for one, there in found.items():
            what = f"{one.name} that another tenant left on {name}"
            evidence = "it was there, on a connection that had been the other's"
            yield Breach(SESSIONS, what, evidence, promised and one.data) if there else Attempt(SESSIONS, what)

    async def _open(self, name: str) -> None:
        from sqlalchemy import text

        async with self.runtime.session(name) as session:
            await session.execute(text("SELECT 1"))

    @staticmethod
    async def _raw(session: Any) -> None:
        """A connection of one's own from the engine behind a session, or another use of its only one."""
        from sqlalchemy import text

        engine = session.bind if hasattr(session.bind, "connect") else session.bind.engine
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 3"))

    # --- cache, files and keys ------------------------------------------------------------------------------------

    def _cache(self, env: Environment, other: Environment) -> Iterator[Attempt]:
        """Values in the cache of another tenant, and keys for a cache that others share."""
        from tenantry.runtime.cache import cache_key

        key, value = f"tenantry-verify-{secrets.token_hex(8)}", secrets.token_hex(8)
        with tenant_context(other):
            self.runtime.cache.set(key, value, 60)
            theirs = cache_key(key)
        try:
            with tenant_context(env):
                found = self.runtime.cache.get(key)
                mine = cache_key(key)
        finally:
            with tenant_context(other):
                self.runtime.cache.delete(key)
        yield _told(CACHE, "value of another tenant", "a value of the other's was read" if found == value else None)
        yield _told(CACHE, "shared cache key", f"both use the key {mine}" if mine == theirs else None)

    def _files(self, env: Environment, other: Environment) -> Iterator[Attempt]:
        """Storage of another tenant, and paths that lead to it."""
        from tenantry.runtime.storage import KINDS

        for place in env.places:
            theirs = other.place(place.name)
            if place.kind not in KINDS or theirs is None:
                continue
            with tenant_context(other):
                storage = self.runtime.storage(place.name)
            with tenant_context(env):
                yield _kept(FILES, f"storage carried to another tenant on {place.name}", storage.list)
                own = self.runtime.storage(place.name)
                up = "../" * (2 + env.home.count("/") + place.location.count("/"))
                for path in (f"{up}{other.home}/{theirs.location}", f"/{other.home}", "..", "x/../../.."):
                    yield _kept(FILES, f"path out of {place.name}", partial(own.list, path))

    def _keys(self, env: Environment, other: Environment) -> Iterator[Attempt]:
        """Secrets moved to another tenant or another field, opened with another's key."""
        vault, mine, theirs = self._vault, env.tenant.id, other.tenant.id
        sealed = vault.seal(mine, env.sealed_key, "verify", "canary")
        for what, opening in (
            ("secret moved to another tenant", lambda: vault.open(theirs, other.sealed_key, "verify", sealed)),
            ("secret opened with another tenant's key", lambda: vault.open(mine, other.sealed_key, "verify", sealed)),
            ("secret moved to another field", lambda: vault.open(mine, env.sealed_key, "verify2", sealed)),
            ("data key moved to another tenant", lambda: vault.open_data_key(theirs, env.sealed_key)),
        ):
            yield _kept(KEYS, what, opening)
        own_key, their_key = open_key(vault, env), open_key(vault, other)
        same = hmac.compare_digest(own_key, their_key)
        yield _told(KEYS, "data key shared", "both have the same data key" if same else None)
        password = credentials.new_password()
        stored = credentials.hash_generated(password, credentials.derive_key(own_key, "password"))
        good = credentials.check_generated(stored, password, credentials.derive_key(their_key, "password"))
        yield _told(KEYS, "password moved to another tenant", "its stored form is good there" if good else None)


# --- what is forged -----------------------------------------------------------------------------------------------


def _forged_headers(mine: bytes, theirs: bytes) -> Iterator[tuple[str, list[tuple[bytes, bytes]]]]:
    """Headers that proxies and frameworks believe, beside an honest Host."""
    for name in (b"x-forwarded-host", b"x-host", b"x-original-host", b"x-forwarded-server", b"x-http-host-override"):
        yield f"forged {name.decode().title()}", [(b"host", mine), (name, theirs)]
    yield "forged Forwarded", [(b"host", mine), (b"forwarded", b"host=" + theirs)]
    yield "forged X-Original-URL", [(b"host", mine), (b"x-original-url", b"https://" + theirs + b"/")]
    yield "two Host headers", [(b"host", mine), (b"host", theirs)]
    yield "two Host headers, reversed", [(b"host", theirs), (b"host", mine)]


def _odd_hosts(mine: bytes, theirs: bytes) -> Iterator[bytes]:
    """Hosts that no browser sends, which must lead nowhere."""
    for between in (b",", b" ", b"@", b"#", b"/", b"\\", b"\x00", b"\r\n", b"?", b"%00"):
        yield mine + between + theirs
    yield b"evil." + theirs
    yield theirs + b".evil.test"
    yield theirs + b":80:80"
    yield theirs + b".."
    yield theirs + b":port"
    yield b"\xff" + theirs


def _token(header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
    """A compact token (RFC 7515 section 7.1)."""

    def coded(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    body = coded(json.dumps(header).encode()) + b"." + coded(json.dumps(claims).encode())
    return body + b"." + coded(sign(body))


def _keyed(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()


# --- what came of it ----------------------------------------------------------------------------------------------


def _told(group: str, what: str, evidence: str | None) -> Attempt:
    return Breach(group, what, evidence) if evidence else Attempt(group, what)


def _judged(group: str, what: str, reached: set[str], evidence: str) -> Attempt:
    return _told(group, what, f"{evidence}: {', '.join(sorted(reached))}" if reached else None)


def _kept(group: str, what: str, attempt: Callable[[], object]) -> Attempt:
    """A breach unless Tenantry refuses it."""
    try:
        attempt()
    except TenantryError as error:
        return Attempt(group, what, error.code)
    except OSError as error:
        return Untried(group, what, str(error))
    return Breach(group, what, "it was not refused")


async def _refused(what: str, attempt: Awaitable[object]) -> Attempt:
    try:
        await attempt
    except TenantryError as error:
        return Attempt(SESSIONS, what, error.code)
    except Exception as error:
        return Untried(SESSIONS, what, f"{type(error).__name__}: {error}")
    return Breach(SESSIONS, what, "it was not refused")

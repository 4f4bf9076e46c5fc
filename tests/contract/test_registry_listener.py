"""Notifications of a control database on PostgreSQL: nobody has to look, and nothing is lost when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import sql
from sqlalchemy.engine import make_url

import outages
import servers
from registries import KEY, draft, enter
from tenantry.errors import RegistryUnavailable
from tenantry.model import Changes, new_id
from tenantry.registry import Feed, Registry, Vault, journal, listener
from tenantry.registry.database import TENANTS, WORK

pytestmark = pytest.mark.postgres

NEVER = 3600.0
HEARING = 2 * NEVER
"""The pause of a listener that hears, in tests where nobody looks."""

PATIENCE = 180.0


@pytest.fixture
def never_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits learns of a change by a notification, or never."""
    monkeypatch.setattr(listener, "LOOK", HEARING)
    monkeypatch.setattr(listener, "POLL", NEVER)


@pytest.fixture
async def registry(postgres_url: str) -> AsyncIterator[Registry]:
    """A new registry on PostgreSQL, where changes are written."""
    async with Registry.open(postgres_url, Vault(KEY), actor="tester") as registry:
        yield registry


@contextlib.asynccontextmanager
async def following(url: str) -> AsyncIterator[Callable[[], Awaitable[Changes]]]:
    """Another process's follower; gives a function that waits for its next changes."""
    async with Registry.open(url, Vault(KEY)) as other:
        loaded = await other.feed.load()
        changes: AsyncGenerator[Changes] = other.feed.follow(loaded.seq)

        async def following_one() -> Changes:
            async with asyncio.timeout(PATIENCE):
                return await anext(changes)

        yield following_one
        await changes.aclose()


def listening(url: str) -> list[int]:
    """The server processes that wait to notify those who follow this database."""
    with psycopg.connect(url) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tenantry feed' AND datname = %s"
        return [row[0] for row in connection.execute(query, [make_url(url).database])]


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("never_look")
async def test_a_change_is_notified(registry: Registry, postgres_url: str) -> None:
    """Followers hear of each commit without ever looking on their own."""
    async with following(postgres_url) as next_changes:
        waiting = asyncio.ensure_future(next_changes())
        await until(lambda: listening(postgres_url))
        first, second = draft("acme"), draft("other")
        await enter(registry, first)
        assert (await waiting).tenants == {first.tenant.id}
        await enter(registry, second)
        assert (await next_changes()).tenants == {second.tenant.id}


@pytest.mark.usefixtures("never_look")
async def test_what_was_written_before_anybody_listened_is_not_missed(registry: Registry, postgres_url: str) -> None:
    """Between loading and listening nothing falls through."""
    async with following(postgres_url) as next_changes:
        early = draft("early")
        await enter(registry, early)
        assert (await next_changes()).tenants == {early.tenant.id}


@pytest.mark.usefixtures("never_look")
async def test_a_lost_connection_is_made_anew_and_caught_up_with(
    registry: Registry, postgres: servers.Postgres, postgres_url: str
) -> None:
    """What was committed while nobody listened arrives, in its order, and notifications go on."""
    async with following(postgres_url) as next_changes:
        waiting = asyncio.ensure_future(next_changes())
        await until(lambda: listening(postgres_url))
        (before,) = listening(postgres_url)
        postgres.run(sql.SQL("SELECT pg_terminate_backend({})").format(before))
        missed = draft("missed")
        await enter(registry, missed)
        assert (await waiting).tenants == {missed.tenant.id}
        waiting = asyncio.ensure_future(next_changes())
        await until(lambda: set(listening(postgres_url)) - {before})
        later = draft("later")
        await enter(registry, later)
        assert (await waiting).tenants == {later.tenant.id}


async def test_where_nobody_notifies_changes_are_looked_for(
    registry: Registry, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that cannot listen, such as behind a pooler, sees changes all the same."""

    async def refused(*_: object) -> None:
        raise psycopg.OperationalError("no more connections")

    monkeypatch.setattr(listener.Listener, "_begin", refused)
    async with following(postgres_url) as next_changes:
        acme = draft("acme")
        await enter(registry, acme)
        assert (await next_changes()).tenants == {acme.tenant.id}
        waiting = asyncio.ensure_future(next_changes())
        await asyncio.sleep(0)
        other = draft("other")
        await enter(registry, other)
        assert (await waiting).tenants == {other.tenant.id}


@pytest.mark.usefixtures("never_look")
async def test_operations_are_told_of_to_those_who_wait_for_work(registry: Registry, postgres_url: str) -> None:
    """A worker is woken by an operation and not by a sign of life; one who follows tenants by neither."""
    async with (
        Registry.open(postgres_url, Vault(KEY)) as other,
        Feed.signal(other.database) as work,
        Feed.signal(other.database, TENANTS) as followed,
    ):
        await until(lambda: other.database.listener and other.database.listener.pause == HEARING)
        for signal in (work, followed):  # when listening begins, to catch up
            await signal.wait()
        woken, quiet = asyncio.ensure_future(work.wait()), asyncio.ensure_future(followed.wait())
        async with registry.write() as tx:
            await journal.beat(tx, new_id())
            tx.audit("test.nothing", "platform")
        async with registry.write() as tx:
            tx.changed(new_id())
        async with asyncio.timeout(PATIENCE):
            await quiet
        assert not woken.done()
        quiet = asyncio.ensure_future(followed.wait())
        async with registry.write() as tx:
            await journal.submit(tx, new_id(), "create", [("db", "sqlite")])
        async with asyncio.timeout(PATIENCE):
            await woken
        assert not quiet.done()
        quiet.cancel()
    assert WORK != TENANTS
    await until(lambda: not listening(postgres_url))


async def test_one_connection_listens_for_a_whole_process(registry: Registry, postgres_url: str) -> None:
    """However many wait, for whatever: the server keeps one connection for it, and none once the registry is closed."""
    async with contextlib.AsyncExitStack() as stack:
        signals = [await stack.enter_async_context(Feed.signal(registry.database, TENANTS)) for _ in range(5)]
        signals += [await stack.enter_async_context(Feed.signal(registry.database, WORK)) for _ in range(5)]
        for signal in signals:
            async with asyncio.timeout(PATIENCE):
                await signal.wait()
        await until(lambda: len(listening(postgres_url)) == 1)
    await registry.database.close()
    await until(lambda: not listening(postgres_url))


def certify(directory: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1 into a server's data directory; returns the certificate's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "control database")])
    moment = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content in (("server.key", secret), ("server.crt", certificate.public_bytes(pem))):
        (directory / file).write_bytes(content)
        (directory / file).chmod(0o600)
        shutil.chown(directory / file, directory.stat().st_uid, directory.stat().st_gid)
    return directory / "server.crt"


@pytest.mark.usefixtures("never_look")
async def test_notifications_come_through_tls(own_postgres: servers.Postgres, tmp_path: Path) -> None:
    """The listening connection verifies the server as every other one does, and is refused where it is another."""
    with psycopg.connect(own_postgres.url()) as connection:
        (directory,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(certify(Path(directory)).read_bytes())
    own_postgres.run("ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
    with own_postgres.database() as plain:
        url = f"{plain}?sslmode=verify-full&sslrootcert={trusted}"

        def encrypted() -> bool:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
                return True
            return False

        await until(encrypted)
        async with Registry.open(url, Vault(KEY)) as registry, following(url) as next_changes:
            waiting = asyncio.ensure_future(next_changes())
            await until(lambda: listening(url))
            acme = draft("acme")
            await enter(registry, acme)
            assert (await waiting).tenants == {acme.tenant.id}
            with psycopg.connect(url) as connection:
                query = (
                    "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name ~ 'tenantry'"
                )
                found = connection.execute(query).fetchall()
        assert len(found) >= 2
        assert {row[0] for row in found} == {True}
        certify(tmp_path)
        trusted.write_bytes((tmp_path / "server.crt").read_bytes())
        with pytest.raises(RegistryUnavailable, match="certificate verify failed"):
            async with Registry.open(url, Vault(KEY)):
                pass


@pytest.mark.usefixtures("never_look")
async def test_a_restarted_server_is_followed_on(own_postgres: servers.Postgres) -> None:
    """A waiting signal stirs when the server goes, listening begins again by itself, and no change is lost."""
    with own_postgres.database() as url:
        async with Registry.open(url, Vault(KEY)) as registry, Registry.open(url, Vault(KEY)) as other:
            await enter(registry, draft("before"))
            async with Feed.signal(other.database, TENANTS) as signal:
                await until(lambda: other.database.listener and other.database.listener.pause == HEARING)
                await signal.wait()
                with outages.down(own_postgres):
                    async with asyncio.timeout(PATIENCE):
                        await signal.wait()
                    with pytest.raises(RegistryUnavailable):
                        await other.feed.since(1)
                later = draft("later")
                await enter(registry, later)
                async with asyncio.timeout(PATIENCE):
                    while (changes := await other.feed.since(1)) is None:
                        await signal.wait()
                assert changes.tenants == {later.tenant.id}
                await until(lambda: other.database.listener and other.database.listener.pause == HEARING)


@contextlib.contextmanager
def pooled(url: str, home: Path) -> Iterator[str]:
    """A pooler of transactions in front of a database: the address that leads through it."""
    if not shutil.which("pgbouncer"):
        pytest.skip("pgbouncer is not installed")
    direct, port = make_url(url), servers.free_port()
    home.chmod(0o755)
    (home / "users").write_text(f'"{direct.username}" "{str(direct.password).replace(chr(34), chr(34) * 2)}"\n')
    (home / "pgbouncer.ini").write_text(
        f"[databases]\n{direct.database} = host={direct.host} port={direct.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n"
        f"auth_file = {home / 'users'}\npool_mode = transaction\nlogfile = {home / 'log'}\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    for file in (home, home / "users", home / "pgbouncer.ini"):
        shutil.chown(file, "nobody") if os.geteuid() == 0 else None
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    process = subprocess.Popen(  # type: ignore[call-overload]
        ["pgbouncer", "-q", home / "pgbouncer.ini"], cwd="/", stderr=subprocess.DEVNULL, **user
    )
    try:
        yield direct.set(port=port).render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.wait()


async def test_behind_a_pooler_of_transactions_changes_are_looked_for(
    registry: Registry, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a notification may reach somebody else: the pooler is noticed, and changes are seen all the same."""
    monkeypatch.setattr(listener, "LOOK", NEVER)
    with tempfile.TemporaryDirectory() as home, pooled(postgres_url, Path(home)) as url:

        def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
                return True
            return False

        await until(answers)
        async with following(url) as next_changes:
            for slug in ("acme", "other", "third"):
                waiting = asyncio.ensure_future(next_changes())
                await asyncio.sleep(0)
                made = draft(slug)
                await enter(registry, made)
                assert (await waiting).tenants == {made.tenant.id}

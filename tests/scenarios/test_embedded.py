"""The PostgreSQL that a platform brings itself: real programs, real processes, and whatever may be killed."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

import tenantry
from tenantry import embedded
from tenantry.config import Config, load
from tenantry.embedded import Embedded, Hold
from tenantry.errors import ConfigError, EmbeddedFailed
from tenantry.platform import Platform

pytestmark = pytest.mark.postgres

USES = """
import sys
from pathlib import Path
from tenantry.embedded import Hold
hold = Hold(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def wait_until(right: Callable[[], object], what: str) -> None:
    """Return when this is right, however busy the machine is."""
    until = time.monotonic() + 60
    while not right():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def ask(url: str, query: str) -> tuple[object, ...]:
    """The one row of a query."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return tuple(row)


def keep(data: Path) -> None:
    """Write something into the control database."""
    with closing(psycopg.connect(embedded.control_url(data), autocommit=True)) as connection:
        connection.execute("CREATE TABLE kept (value) AS VALUES (7)")


def keeper_of(data: Path) -> int:
    """The process id of the keeper."""
    return int((data / "postgres" / "keeper").read_text())


def postmaster_of(data: Path) -> int:
    """The process id of PostgreSQL."""
    return int((data / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def lives(pid: int) -> bool:
    """Whether a process works still; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def started(data: Path) -> object:
    """When the server started: another moment, another server."""
    return ask(embedded.admin_url(data), "SELECT pg_postmaster_start_time()")[0]


def use(data: Path) -> subprocess.Popen[str]:
    """Another process that uses it until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", USES, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory whose server is ended with the test."""
    with tempfile.TemporaryDirectory(prefix="tenantry-embedded-", ignore_cleanup_errors=True) as folder:
        place = Path(folder) / "var"
        place.mkdir(mode=0o750)
        yield place
        found = Embedded(place)
        if not (found.folder / "keeper").exists():
            return
        while found._kept():
            with suppress(ProcessLookupError, ValueError):
                os.kill(keeper_of(place), signal.SIGTERM)
            time.sleep(0.05)


def test_tenantry_is_no_superuser_and_the_control_databases_role_reaches_nothing_else(data: Path) -> None:
    """The administrator may make databases and roles; the directories above keep their permissions."""
    above = stat.S_IMODE(data.parent.stat().st_mode), stat.S_IMODE(data.stat().st_mode)
    hold = Hold(data)
    assert (stat.S_IMODE(data.parent.stat().st_mode), stat.S_IMODE(data.stat().st_mode)) == above == (0o700, 0o750)
    query = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = "
    assert ask(embedded.admin_url(data), query + "current_user") == (False, True, True, False, False)
    assert ask(embedded.control_url(data), query + "current_user") == (False,) * 5
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        ask(embedded.admin_url(data).replace("/postgres", f"/{embedded.CONTROL}"), "SELECT 1")
    keys = json.loads((data / "postgres" / "server.json").read_text())
    assert stat.S_IMODE((data / "postgres" / "server.json").stat().st_mode) == 0o600
    for secret in (keys["superuser"], keys["admin"], keys["control"]):
        assert secret not in (data / "postgres" / "log").read_text()
    hold.close()


def test_two_first_starts_at_once_share_one_server(data: Path) -> None:
    """Several processes begin together: one makes the files, one keeper runs one server for all."""
    users = [use(data) for _ in range(3)]
    for user in users:
        assert user.stdout is not None
        assert user.stdout.readline() == "ready\n", user.communicate()[1]
    assert Embedded(data).answers()
    assert not list((data / "postgres").glob("new-*"))
    for user in users:
        user.communicate()
        assert user.returncode == 0


def test_it_ends_when_nobody_uses_it_and_what_was_written_is_there_at_the_next_start(data: Path) -> None:
    """The last user went; a while later neither server nor keeper is left, and the next start finds everything."""
    hold = Hold(data)
    keep(data)
    keeper, server = keeper_of(data), postmaster_of(data)
    time.sleep(embedded.IDLE_SECONDS + 1)
    assert lives(server), "it was ended while it was in use"
    hold.close()
    wait_until(lambda: not lives(keeper) and not lives(server), "it goes on though nobody uses it")
    with pytest.raises(psycopg.OperationalError):
        ask(embedded.control_url(data), "SELECT 1")
    again = Hold(data)
    assert ask(embedded.control_url(data), "SELECT value FROM kept") == (7,)
    again.close()


def test_a_killed_keeper_takes_nobody_along_and_the_next_start_makes_another(data: Path) -> None:
    """The server outlives its keeper, and the next keeper takes it over as it is."""
    hold = Hold(data)
    first, since = keeper_of(data), started(data)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not lives(first), "it was killed")
    assert started(data) == since
    other = Hold(data)
    assert keeper_of(data) != first
    assert started(data) == since
    server = postmaster_of(data)
    hold.close()
    other.close()
    wait_until(lambda: not lives(server), "the new keeper does not end the server it took over")


def test_a_killed_server_is_started_again(data: Path) -> None:
    """The keeper starts PostgreSQL again, which loses nothing that was committed."""
    hold = Hold(data)
    keep(data)
    first = postmaster_of(data)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not lives(first) and Embedded(data).answers(), "it is not started again")
    assert ask(embedded.control_url(data), "SELECT value FROM kept") == (7,)
    hold.close()


def test_a_crash_of_the_machine_leaves_a_stale_process_id_behind(data: Path) -> None:
    """Where the recorded number belongs to another process by now, that one is left alone and the server starts."""
    hold = Hold(data)
    keep(data)
    keeper, server = keeper_of(data), postmaster_of(data)
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not lives(keeper), "it was killed")
    pid_file = data / "postgres" / "data" / "postmaster.pid"
    left = pid_file.read_text()
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not lives(server), "it was killed")
    bystander = subprocess.Popen(["sleep", "600"])
    pid_file.write_text("\n".join([str(bystander.pid), *left.splitlines()[1:]]))
    other = Hold(data)
    assert ask(embedded.control_url(data), "SELECT value FROM kept") == (7,)
    assert postmaster_of(data) not in (bystander.pid, server)
    hold.close()
    other.close()
    os.kill(keeper_of(data), signal.SIGTERM)
    wait_until(lambda: not Embedded(data).answers(), "it is not ended when it is asked to")
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_first_start_that_was_killed_is_begun_anew(data: Path) -> None:
    """Half-made files never get the name of whole ones."""
    folder = data / "postgres"
    folder.mkdir()
    (folder / "new-00000000").mkdir()
    (folder / "new-00000000" / "PG_VERSION").write_text("18\n")
    hold = Hold(data)
    assert Embedded(data).answers()
    assert not list(folder.glob("new-*"))
    hold.close()


def test_a_taken_port_is_named(data: Path) -> None:
    """Another program has the port: it is said so, with the number and what to do."""
    port = Embedded(data).keys().port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(EmbeddedFailed, match=f"port {port} is taken") as raised:
            Hold(data)
    assert "server.json" in raised.value.hint
    hold = Hold(data)  # and as soon as the port is free, it starts
    hold.close()


def test_an_installed_postgresql_serves_as_well(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the system's programs are used, and later starts go on with the same version."""
    installed = [place for place in embedded._places() if place.is_relative_to("/usr")]
    if not installed:
        pytest.skip("no PostgreSQL is installed; run scripts/servers")
    every = embedded._places
    monkeypatch.setattr(embedded, "_places", lambda: installed)
    hold = Hold(data)
    (version,) = ask(embedded.admin_url(data), "SELECT current_setting('server_version_num')::integer / 10000")
    assert version == embedded._version(installed[0], None)
    server = postmaster_of(data)
    hold.close()
    os.kill(keeper_of(data), signal.SIGTERM)
    wait_until(lambda: not lives(server), "it is not ended when it is asked to")
    monkeypatch.setattr(embedded, "_places", every)  # the package's are there again, and newer
    again = Hold(data)
    assert ask(embedded.admin_url(data), "SELECT current_setting('server_version_num')::integer / 10000") == (version,)
    again.close()


def test_missing_programs_are_said_with_the_remedy(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the package nor an installed PostgreSQL: the error names both ways out."""
    monkeypatch.setattr(embedded, "_places", list)
    with pytest.raises(EmbeddedFailed, match="no programs") as raised:
        Hold(data)
    assert "tenantry[embedded]" in raised.value.hint


def test_files_of_another_version_are_not_touched(data: Path) -> None:
    """Files that another major version made are not started with these programs; the error tells both versions."""
    cluster = data / "postgres" / "data"
    Embedded(data).keys()
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("9\n")
    if os.geteuid() == 0:
        os.chown(cluster, 65534, 65534)
    with pytest.raises(EmbeddedFailed, match="the files are of 9"):
        Hold(data)


def test_lost_passwords_are_not_replaced_by_new_ones(data: Path) -> None:
    """The databases are there and their passwords are not: nothing is made anew over them."""
    (data / "postgres" / "data").mkdir(parents=True)
    with pytest.raises(EmbeddedFailed, match="is gone"):
        Hold(data)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_told_whose_it_is(data: Path) -> None:
    """What one user began, another one cannot go on with: the error names the owner."""
    Embedded(data).keys()
    data.parent.chmod(0o755)
    data.chmod(0o755)
    (data / "postgres").chmod(0o755)
    code = f"from pathlib import Path\nfrom tenantry.embedded import Embedded\nEmbedded(Path({str(data)!r})).keys()"
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            exec(code)
        except EmbeddedFailed as error:
            os._exit(0 if "belongs to root" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_named_and_leaves_nothing_half_made(data: Path) -> None:
    """The files do not fit: it is said so, and with room the same start succeeds."""
    folder = data / "postgres"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(EmbeddedFailed, match="No space left") as raised:
            Hold(data)
        assert "Make room" in raised.value.hint
        assert not (folder / "data").exists()
        assert not list(folder.glob("new-*"))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# --- the platform on it -------------------------------------------------------------------------------------------

TOML = """
[platform]
control = "embedded"
[servers.local]
kind = "postgres"
embedded = true
capacity = 100
[blueprints.site.resources]
notes = {kind = "directory"}
"""


def platform_file(folder: Path, text: str) -> Path:
    """A tenantry.toml."""
    path = folder / "tenantry.toml"
    path.write_text(text)
    return path


async def test_a_platform_runs_on_it_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control database and server are the embedded one; status names it without a password."""
    monkeypatch.setenv("TENANTRY_SECRET_KEY", secrets.token_hex(32))
    path = platform_file(data.parent, TOML)
    async with Platform.open(path) as platform:
        assert Embedded(data)._try_lock("users") is None, "nothing says that it is in use"
        status = await platform.status()
        assert status["control"].startswith("postgresql")
        assert Embedded(data).keys().control not in json.dumps(status, default=str)
        config: Config = platform.config
        async with platform.registry.read() as tx:
            await platform.tools.learn_servers(tx)
        server = platform.tools.servers.get("local")
        assert server.admin == embedded.admin_url(config.data)
        assert server.address == f"postgresql://127.0.0.1:{Embedded(data).keys().port}/postgres"
    free = Embedded(data)._try_lock("users")
    assert free is not None, "it is in use though the platform is closed"
    os.close(free)


async def test_an_application_keeps_it_for_as_long_as_it_runs(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime of an application starts it, and says that it is in use while the runtime is there."""
    monkeypatch.setenv("TENANTRY_SECRET_KEY", secrets.token_hex(32))
    path = platform_file(data.parent, TOML)
    async with Platform.open(path):
        pass
    os.kill(keeper_of(data), signal.SIGTERM)
    wait_until(lambda: not Embedded(data)._kept(), "it is not ended when it is asked to")
    runtime = tenantry.connect(path)
    await runtime.start()
    try:
        gc.collect()
        assert Embedded(data).answers()
        assert Embedded(data)._try_lock("users") is None
    finally:
        await runtime.stop()
    free = Embedded(data)._try_lock("users")
    assert free is not None, "it is in use though the runtime has stopped"
    os.close(free)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('kind = "postgres"', "it has no url"),
        ('kind = "postgres"\nurl = "postgresql://a@b/c"\nembedded = true', "it has a url as well"),
        ('kind = "mysql"\nembedded = true', "cannot be embedded"),
        ('kind = "postgres"\nembedded = true\n[servers.two]\nkind = "postgres"\nembedded = true', "already"),
    ],
)
def test_a_server_has_one_address(tmp_path: Path, lines: str, told: str) -> None:
    """A server without a URL, with two addresses, or a second embedded one is a fault of tenantry.toml."""
    text = f'[servers.one]\n{lines}\n[blueprints.site.resources]\nnotes = {{kind = "directory"}}\n'
    with pytest.raises(ConfigError, match=told):
        load(platform_file(tmp_path, text))


async def test_the_control_databases_own_commands_start_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tenantry registry` works on the embedded control database while nothing else of the platform runs."""
    monkeypatch.setenv("TENANTRY_SECRET_KEY", secrets.token_hex(32))
    path = platform_file(data.parent, TOML)
    async with Platform.open(path):
        pass
    os.kill(keeper_of(data), signal.SIGTERM)
    wait_until(lambda: not Embedded(data)._kept(), "it is not ended when it is asked to")
    monkeypatch.chdir(data.parent)
    done = await asyncio.to_thread(
        subprocess.run,
        [
            Path(sys.executable).with_name("tenantry"),
            "registry",
            "copy",
            "--to",
            f"sqlite:///{data.parent}/copy.sqlite",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (data.parent / "copy.sqlite").exists()

"""A real MariaDB server that the tests start for themselves, with TLS, and end again."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.engine import URL

from servers import ODD, START_SECONDS, NoServer, free_port

SETTINGS = {
    "bind-address": "127.0.0.1",
    "character-set-server": "latin1",  # nothing may rely on the server's own
    "default-time-zone": "-05:00",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-doublewrite": "0",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "16M",
    "max-connections": "200",
    "event-scheduler": "ON",
}


@dataclass(frozen=True)
class MariaDB:
    """A running MariaDB server."""

    port: int
    password: str
    home: Path
    process: subprocess.Popen[bytes]
    tls: bool

    def url(self, user: str = "root", password: str | None = None, **query: str) -> str:
        """An administrator's address, as tenantry.toml has it; demands TLS where the server has it."""
        if self.tls:
            query = {"ssl_ca": str(self.home / "ca.pem"), **query}
        made = URL.create("mysql", user, password or self.password, "127.0.0.1", self.port, query=query)
        return made.render_as_string(hide_password=False)

    def connect(self, user: str = "root", password: str | None = None, database: str | None = None) -> Any:
        """A connection of whoever it is, past Tenantry."""
        ca = str(self.home / "ca.pem") if self.tls else None
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=(password or self.password).encode(),
            database=database,
            ssl_ca=ca,
            ssl_verify_identity=self.tls,
            charset="utf8mb4",
            autocommit=True,
        )

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the superuser; the rows of the last one."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def databases(self) -> set[str]:
        """All databases but the server's own."""
        own = {"information_schema", "mysql", "performance_schema", "sys"}
        return {name for (name,) in self.run("SHOW DATABASES")} - own

    def users(self) -> set[str]:
        """All users but the server's own and administrators."""
        return {name for (name,) in self.run("SELECT user FROM mysql.user WHERE super_priv = 'N'")} - {"mariadb.sys"}

    @contextlib.contextmanager
    def administrator(self, *grants: str) -> Iterator[tuple[str, str]]:
        """Name and password of a user with these grants and no others, such as "CREATE USER ON *.*"."""
        name, password = f"adm_{secrets.token_hex(4)}", secrets.token_urlsafe(12) + ODD
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (name, password))
            for grant in grants:
                option = " WITH GRANT OPTION" if "`" in grant else ""
                cursor.execute(f"GRANT {grant.replace('%', '%%')} TO %s@'%%'{option}", (name,))
            try:
                yield name, password
            finally:
                cursor.execute("DROP USER %s@'%%'", (name,))


def programs() -> tuple[str, str]:
    """`mariadbd` and `mariadb-install-db`. Raises `NoServer`."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    server, installer = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    if server and installer:
        return server, installer
    raise NoServer("no MariaDB server is installed; run scripts/servers")


@contextlib.contextmanager
def running(tls: bool = True, place: Path | None = None, **settings: str) -> Iterator[MariaDB]:
    """A MariaDB server on a free port, with its files in a temporary directory at a place. Raises `NoServer`."""
    server, installer = programs()
    user = _unprivileged()
    home = Path(tempfile.mkdtemp(prefix="tenantry-mariadb-", dir=place))
    try:
        if tls:
            certify(home)
        if user:
            for path in (home, *home.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
        _initialise(installer, home, user)
        found = _start(server, home, user, tls, settings)
        try:
            yield found
        finally:
            end(found.process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def certify(home: Path) -> None:
    """A certificate authority of the test's own, and a certificate for 127.0.0.1: ca.pem, server.pem, server.key."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])
    host = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    own = _certificate(issuer, authority.public_key()).add_extension(x509.BasicConstraints(True, 0), True)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    own = own.add_extension(usage, True).sign(authority, hashes.SHA256())
    name = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    server = _certificate(host, key.public_key(), issuer).add_extension(name, False).sign(authority, hashes.SHA256())
    (home / "ca.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (home / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (home / "server.key").write_bytes(private)
    home.chmod(0o755)
    (home / "ca.pem").chmod(0o644)


def _certificate(subject: x509.Name, key: Any, issuer: x509.Name | None = None) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("mysql", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoServer("MariaDB does not run as root, and there is no user mysql or nobody")


def _as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _initialise(installer: str, home: Path, user: pwd.struct_passwd | None) -> None:
    command = (
        *(installer, "--no-defaults", f"--datadir={home / 'data'}", f"--tmpdir={home}", "--skip-test-db"),
        *("--skip-name-resolve", "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"),
    )
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, **_as(user))
    assert done.returncode == 0, done.stdout + done.stderr


def _start(server: str, home: Path, user: pwd.struct_passwd | None, tls: bool, settings: dict[str, str]) -> MariaDB:
    port, password = free_port(), secrets.token_urlsafe(12) + ODD
    first = home / "first.sql"  # run by the server itself before it lets anybody in
    literal = password.replace("\\", "\\\\").replace("'", "\\'")
    first.write_text(
        "SET NAMES utf8mb4;\n"
        "DELETE FROM mysql.global_priv WHERE User IN ('', 'root');\n"
        "FLUSH PRIVILEGES;\n"
        f"CREATE USER 'root'@'%' IDENTIFIED BY '{literal}';\nGRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;\n"
    )
    options = {**SETTINGS, **{name.replace("_", "-"): value for name, value in settings.items()}}
    if tls:
        options |= {"ssl-ca": "ca.pem", "ssl-cert": "server.pem", "ssl-key": "server.key"}
        options |= {name: str(home / options[name]) for name in ("ssl-ca", "ssl-cert", "ssl-key")}
    command: list[str] = [
        *(server, "--no-defaults", f"--datadir={home / 'data'}", f"--tmpdir={home}", f"--port={port}"),
        *(f"--socket={home / 's'}", f"--pid-file={home / 'pid'}", f"--init-file={first}", "--skip-log-bin"),
        *("--skip-name-resolve", *(f"--{name}={value}" for name, value in options.items())),
    ]
    if shutil.which("setpriv"):  # so that the server ends with the tests even where these are killed
        switched = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
        command, user = ["setpriv", "--pdeathsig", "KILL", *switched, *command], None
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, **_as(user))
    found = MariaDB(port, password, home, process, tls)
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            found.connect().close()
            first.unlink()
            return found
        except pymysql.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until:
                end(process)
                raise AssertionError(f"MariaDB does not start: {(home / 'log').read_text()[-2000:]}") from error
            time.sleep(0.05)


def end(process: subprocess.Popen[bytes], wait: Sequence[int] = (20,)) -> None:
    """End the server; its files are thrown away, so that it needs not tidy up."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(wait[0])

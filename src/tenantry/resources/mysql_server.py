"""A MariaDB or MySQL server as its administrator sees it: connections, TLS, what its errors mean, whether it is fit."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT
from pymysql.converters import conversions

from tenantry.errors import ServerUnavailable, ServerUnfit, TenantryError
from tenantry.model import Finding, Login, Server
from tenantry.resources.servers import Servers

CONNECT_SECONDS: Final = 5.0
"""Until a server that does not answer is given up."""

STATEMENT_SECONDS: Final = 3600
"""Until a tenant's statement is given up: a migration of a large table may take long."""

ADMIN_SECONDS: Final = 300
"""Until an administrator's statement is given up: a server whose disk is full may wait for room."""

LOCK_SECONDS: Final = 120
"""Until it is given up to wait for another process that works on the same database."""

IDLE: Final = 8
"""The most administrator's connections to one server that wait for their next use."""

VERSIONS: Final[Mapping[str, tuple[int, int]]] = {"MariaDB": (10, 6), "MySQL": (8, 0)}
"""The oldest versions that do: MariaDB's DDL is atomic from 10.6 on, MySQL's from 8.0 on."""

BOOK_GRANT: Final = "ALL PRIVILEGES ON `tenantry\\_%`.*"
TENANT_GRANT: Final = "ALL PRIVILEGES ON `PREFIX%`.*"
GRANTS: Final = (
    "CREATE USER, PROCESS, CONNECTION ADMIN ON *.*",  # MySQL: CONNECTION_ADMIN
    f"{BOOK_GRANT} WITH GRANT OPTION",
    f"{TENANT_GRANT} WITH GRANT OPTION, where PREFIX is how the databases' names begin",
)
"""What an administrator needs, and no more: `SUPER` and the database `mysql` are not among it."""

_SSL: Final = frozenset({"ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname"})
"""TLS settings of an address, as SQLAlchemy spells them for its MySQL drivers, which serve the application."""

UNREACHABLE: Final = frozenset({2002, 2003, 2005, 2006, 2013, 1053, 1152, 1158, 1159, 1160, 1161})
TOO_MANY: Final = frozenset({1040, 1203, 1226})
FORBIDDEN: Final = frozenset({1044, 1142, 1143, 1227, 1370, 1410, 1419})
FULL: Final = re.compile(r"no space left|disk full|errno: (?:28|135)\b|error 28\b|the table .* is full", re.IGNORECASE)

BAD_LOGIN: Final = frozenset({1045, 1698, 3118, 4151})  # the last two: the user is locked
NO_DATABASE: Final = 1049
NO_TABLE: Final = 1146
DATABASE_THERE: Final = 1007
USER_REFUSED: Final = 1396
NO_TLS: Final = 2026

_FALSE: Final = frozenset({"0", "false", "no", "off", "f", "n"})  # as SQLAlchemy reads truth values
_ENCODERS: Final = {key: value for key, value in conversions.items() if not isinstance(key, int)}


class Refused(Exception):
    """What a server said no to, with the number of its error."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} (error {number})" if number else text)
        self.number = number
        self.text = text


class Connection(pymysql.connections.Connection):  # type: ignore[misc]
    """A connection that knows its server, and gives rows as they come from it."""

    server: Server

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement and give its rows. `%s` stands for a value, and without values nothing is replaced.

        Raises `Refused` for what the server does not do, `ServerUnavailable`, `ServerUnfit`.
        """
        with told(self.server), self.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def run(self, statements: str) -> None:
        """Run several statements, separated by semicolons, in one round trip; stops at the first that fails."""
        with told(self.server), self.cursor() as cursor:
            cursor.execute(statements)
            while cursor.nextset():
                pass

    def patient(self, seconds: int) -> None:
        """Wait so long for the answer to a statement from now on."""
        self._read_timeout = seconds


# --- connecting ---------------------------------------------------------------------------------------------------


def arguments(server: Server, url: str) -> dict[str, Any]:
    """PyMySQL's arguments out of a server's URL. Raises `ServerUnfit` for settings that are not known."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(query.keys() - _SSL - {"charset"})
    reason = (
        f"its address has the setting '{unknown[0]}'" if unknown else "its address has ssl_ settings without ssl_ca"
    )
    if unknown or (_SSL & query.keys() and not query.get("ssl_ca")):
        raise ServerUnfit(server=server.name, reason=reason, remedy=f"Known: {', '.join(sorted(_SSL))}.")
    found: dict[str, Any] = {"host": parts.hostname or "", "port": parts.port or 3306}
    if "ssl_ca" in query:
        checked = query.get("ssl_check_hostname", "true").lower() not in _FALSE
        found.update((key, query[key]) for key in ("ssl_ca", "ssl_cert", "ssl_key") if key in query)
        found.update(ssl_verify_cert=True, ssl_verify_identity=checked)
    return found


def demands_tls(server: Server) -> bool:
    """Whether a server's address asks for TLS; without it, TLS is used where the server offers it."""
    return any(name in _SSL for name, _ in parse_qsl(urlsplit(server.address).query))


def connect(
    server: Server,
    login: Login,
    database: str | None = None,
    *,
    multi: bool = False,
    patience: int = STATEMENT_SECONDS,
) -> Connection:
    """A connection in UTF-8 that commits by itself. `multi` lets one call hold several statements.

    Raises `ServerUnavailable` after five seconds without an answer, `ServerUnfit` without TLS where it is demanded,
    `Refused` for a wrong password or database.
    """
    with told(server):
        try:
            connection = Connection(
                **arguments(server, server.address),
                user=login.user,
                password=login.password.encode(),  # PyMySQL takes text for Latin-1
                database=database,
                charset="utf8mb4",
                conv=_ENCODERS,
                autocommit=True,
                client_flag=CLIENT.MULTI_STATEMENTS if multi else 0,
                connect_timeout=CONNECT_SECONDS,
                read_timeout=CONNECT_SECONDS,
                write_timeout=patience,
            )
        except OSError as error:  # a certificate file that cannot be read
            reason = f"its TLS settings do not work, {error.strerror or error} ({error.filename or 'no file'})"
            raise ServerUnfit(server=server.name, reason=reason) from error
    connection.server = server
    connection.patient(patience)
    return connection


def administrator(server: Server) -> Login:
    """The administrator's login. Raises `ServerUnfit` where this process does not know it."""
    parts = urlsplit(server.admin)
    if not parts.username:
        raise ServerUnfit(server=server.name, reason="its administrator's login is not known here")
    return Login(unquote(parts.username), unquote(parts.password or ""))


class Administration:
    """Administrators' connections to servers, kept for their next use."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._idle: dict[str, list[Connection]] = {}

    @contextmanager
    def open(self, server: Server) -> Iterator[Connection]:
        """A connection to work on. One that an error went through is not used again."""
        with self.heeded(server):
            connection = self._take(server) or self._connect(server)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._put(connection)

    @contextmanager
    def heeded(self, server: Server) -> Iterator[None]:
        """Remember it where a server does not answer."""
        try:
            yield
        except ServerUnavailable:
            self._servers.silent(server.name)
            raise

    def _connect(self, server: Server) -> Connection:
        try:
            connection = connect(server, administrator(server), patience=ADMIN_SECONDS)
        except Refused as error:
            reason = f"it refuses its administrator's login: {error.text}"
            remedy = f"Correct the user or the password in the address of the server '{server.name}'."
            raise ServerUnfit(server=server.name, reason=reason, remedy=remedy) from error
        too_old = outdated(connection)
        if too_old:
            connection.close()
            raise ServerUnfit(server=server.name, reason=too_old.what, remedy=too_old.remedy)
        return connection

    def _take(self, server: Server) -> Connection | None:
        idle = self._idle.get(server.admin, [])
        while idle:
            connection = idle.pop()
            with suppress(pymysql.MySQLError):
                connection.ping(reconnect=False)
                return connection
            connection.close()
        return None

    def _put(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.server.admin, [])
        if len(idle) < IDLE:
            idle.append(connection)
        else:
            connection.close()


@contextmanager
def locked(connection: Connection, name: str, seconds: int = LOCK_SECONDS) -> Iterator[None]:
    """Hold a lock that ends with the connection: one process at a time does what the name says.

    Names have at most 64 characters (MySQL's limit).
    """
    ((got,),) = connection.ask("SELECT GET_LOCK(%s, %s)", name, seconds)
    if got != "1":
        raise Refused(0, f"another process has been working on it for {seconds} seconds")
    try:
        yield
    finally:
        with suppress(TenantryError, Refused):  # it went with the connection
            connection.ask("DO RELEASE_LOCK(%s)", name)


# --- what errors mean ---------------------------------------------------------------------------------------------


@contextmanager
def told(server: Server) -> Iterator[None]:
    """Turn PyMySQL's errors into ours."""
    try:
        yield
    except pymysql.MySQLError as error:
        raise _meaning(server, error) from error


def _meaning(server: Server, error: pymysql.MySQLError) -> Exception:
    first, text = (*error.args, "", "")[:2]
    number, text = (first, str(text)) if isinstance(first, int) else (0, str(first) or type(error).__name__)
    if number == 2003 and isinstance(getattr(error, "original_exception", None), ValueError):
        number = NO_TLS  # a certificate that does not hold is an error of values in Python's ssl
    if number == NO_TLS or "certificate verify failed" in text or "[SSL" in text:
        remedy = "Let the server offer TLS with a certificate that ssl_ca vouches for, or change the ssl_ settings."
        return ServerUnfit(server=server.name, reason=f"there is no sound TLS to it: {text}", remedy=remedy)
    if number in UNREACHABLE:
        return ServerUnavailable(server=server.name, reason=text)
    if number in TOO_MANY:
        remedy = "Raise max_connections there, or lower `connections` of the server here."
        return ServerUnavailable(server=server.name, reason=f"all its connections are in use: {text}", remedy=remedy)
    if FULL.search(text):
        remedy = "Make room there, then try again: what was begun is completed."
        return ServerUnfit(server=server.name, reason=f"its disk is full: {text}", remedy=remedy)
    return Refused(number, text)


def missing(server: Server, error: Refused) -> TenantryError | None:
    """What it means that an administrator may not do something: the privileges that one needs."""
    if error.number not in FORBIDDEN:
        return None
    remedy = "Grant the administrator: " + "; ".join(GRANTS) + "."
    return ServerUnfit(server=server.name, reason=f"its administrator lacks a privilege: {error.text}", remedy=remedy)


# --- names in statements ------------------------------------------------------------------------------------------


def quote(name: str) -> str:
    """A name as an SQL identifier (mariadb.com/kb/en/identifier-names)."""
    return "`" + name.replace("`", "``") + "`"


def quote_grant(name: str) -> str:
    """A database in GRANT, where `_` and `%` stand for any characters unless a backslash is before them."""
    return quote(re.sub(r"([\\_%])", r"\\\1", name))


# --- is it fit ----------------------------------------------------------------------------------------------------


def product(connection: Connection) -> tuple[str, tuple[int, int]]:
    """ "MariaDB" or "MySQL" and its version."""
    text = str(connection.get_server_info()).removeprefix("5.5.5-")  # so MariaDB greets old replicas
    numbers = re.match(r"(\d+)\.(\d+)", text)
    assert numbers is not None
    return ("MariaDB" if "mariadb" in text.lower() else "MySQL"), (int(numbers[1]), int(numbers[2]))


def outdated(connection: Connection) -> Finding | None:
    """What is wrong with a server's version."""
    name, version = product(connection)
    least = VERSIONS[name]
    if version >= least:
        return None
    what = f"it is {name} {version[0]}.{version[1]}, and the oldest that does is {least[0]}.{least[1]}"
    return Finding(connection.server.name, False, what, "Upgrade the server.")


ON_TABLES: Final = tuple(
    "SELECT,INSERT,UPDATE,DELETE,CREATE,DROP,ALTER,INDEX,REFERENCES,CREATE VIEW,SHOW VIEW,TRIGGER".split(",")
)
"""What migrations need in a database that is there already."""


def probe(server: Server, *, databases: bool = True) -> list[Finding]:
    """Whether a server is fit for tenants: reachable, new enough, encrypted, its administrator able, roomy enough.

    Without `databases` its login makes none, and no users: it makes tables in the database of its address.
    """
    try:
        with contextlib.closing(connect(server, administrator(server))) as connection:
            able = _privileges(connection) if databases else [_tables(connection)]
            return [_version(connection), _encryption(connection), *able, *_room(connection)]
    except Refused as error:
        remedy = f"Correct the address of the server '{server.name}'."
        return [Finding(server.name, False, f"it refuses its administrator: {error}", remedy)]
    except TenantryError as error:
        return [Finding(server.name, False, error.message, error.hint)]


def _version(connection: Connection) -> Finding:
    name, version = product(connection)
    return outdated(connection) or Finding(connection.server.name, True, f"{name} {version[0]}.{version[1]}")


def _encryption(connection: Connection) -> Finding:
    name, server = connection.server.name, connection.server
    ((_, protocol),) = connection.ask("SHOW SESSION STATUS LIKE 'Ssl_version'")
    if protocol:
        return Finding(name, True, f"encrypted by {protocol}" + ("" if demands_tls(server) else ", not verified"))
    host = arguments(server, server.address)["host"]
    if host == "localhost" or _loopback(host):
        return Finding(name, True, "not encrypted, on this host")
    remedy = "Let the server offer TLS and add ?ssl_ca=/path/ca.pem to its address."
    return Finding(name, False, "connections to it are not encrypted", remedy)


def _loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _privileges(connection: Connection) -> list[Finding]:
    """What the administrator lacks, by SHOW GRANTS."""
    name, maria = connection.server.name, product(connection)[0] == "MariaDB"
    grants = [str(row[0]) for row in connection.ask("SHOW GRANTS")]
    everywhere = " ".join(grant.partition(" ON *.* ")[0] for grant in grants if " ON *.* " in grant)
    wanted = ("CREATE USER", "PROCESS", "CONNECTION ADMIN" if maria else "CONNECTION_ADMIN")
    able = "ALL PRIVILEGES" in everywhere
    lacking = [f"{one} ON *.*" for one in wanted if not able and one not in everywhere]
    passed_on = [grant.partition(" TO ")[0] for grant in grants if grant.endswith("WITH GRANT OPTION")]
    if not any(grant.endswith((" ON *.*", " ON `tenantry\\_%`.*")) for grant in passed_on):
        lacking.append(BOOK_GRANT)
    if not any(not grant.endswith(" ON `tenantry\\_%`.*") for grant in passed_on):
        lacking.append(TENANT_GRANT)
    if not lacking:
        return [Finding(name, True, "its administrator may make databases and users")]
    ((user,),) = connection.ask("SELECT CURRENT_USER()")
    account = "'{}'@'{}'".format(*str(user).rpartition("@")[::2])
    return [Finding(name, False, f"its administrator lacks {one}", _granting(one, account)) for one in lacking]


def _tables(connection: Connection) -> Finding:
    """Whether a login may make, change and use tables in the database that its address names."""
    name, database = connection.server.name, urlsplit(connection.server.address).path.strip("/")
    places = {"*.*", f"{quote(database)}.*", f"{quote(database.replace('_', chr(92) + '_'))}.*"}
    may: set[str] = set()
    for grant, *_ in connection.ask("SHOW GRANTS"):
        head, _, rest = str(grant).removeprefix("GRANT ").partition(" ON ")
        may |= set(head.split(", ")) if rest.partition(" TO ")[0] in places else set()
    lacking = [] if "ALL PRIVILEGES" in may else [one for one in ON_TABLES if one not in may]
    if not lacking:
        return Finding(name, True, f"its login may make tables in {database or 'its databases'}")
    ((user,),) = connection.ask("SELECT CURRENT_USER()")
    account = "'{}'@'{}'".format(*str(user).rpartition("@")[::2])
    remedy = f"Run GRANT {', '.join(lacking)} ON {quote(database)}.* TO {account};"
    return Finding(name, False, f"its login lacks {', '.join(lacking)} on {database or 'any database'}", remedy)


def _granting(privilege: str, account: str) -> str:
    """The statement that grants a privilege."""
    option = " WITH GRANT OPTION" if "`" in privilege else ""
    where = " Let PREFIX be how the databases' names begin." if "PREFIX" in privilege else ""
    return f"Run GRANT {privilege} TO {account}{option};{where}"


def _room(connection: Connection) -> list[Finding]:
    server = connection.server
    ((most,),) = connection.ask("SELECT @@max_connections")
    found = []
    if int(most) < server.connections:
        remedy = f"Raise max_connections there, or set servers.{server.name}.connections to less."
        what = f"it takes {most} connections, and one process may open {server.connections}"
        found.append(Finding(server.name, False, what, remedy))
    else:
        found.append(Finding(server.name, True, f"takes {most} connections"))
    if connection.ask("SHOW GLOBAL VARIABLES LIKE 'partial_revokes'") not in ([], [("partial_revokes", "OFF")]):
        remedy = "Set partial_revokes = OFF: with it a grant means other databases than it says."
        found.append(Finding(server.name, False, "partial_revokes is on", remedy))
    return found

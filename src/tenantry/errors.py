"""Every error Tenantry raises: one root, and for each a stable code, a message and a remedy."""

from __future__ import annotations

from typing import Any, ClassVar


class TenantryError(Exception):
    """Something went wrong.

    The first line of a class's docstring is its message, filled with the keyword arguments of the error. `code` is
    stable and may be relied on, `remedy` says what to do next, `status` is the answer of an HTTP request, and
    `exit_code` that of a command (1 failed, 2 usage, 3 refused, 4 not found).
    """

    code: ClassVar[str] = "error"
    remedy: ClassVar[str] = "See the log for details."
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, remedy: str | None = None, **details: Any) -> None:
        self.details = details
        template = (type(self).__doc__ or "").strip().splitlines()[0]
        self.message = message if message is not None else template.format_map(_Shown(details))
        self.hint = remedy if remedy is not None else type(self).remedy.format_map(_Shown(details))
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}  {self.hint}".rstrip()

    def as_dict(self) -> dict[str, str]:
        """Code, message and remedy, as they are stored with a failed operation and sent over the wire."""
        return {"code": self.code, "message": self.message, "remedy": self.hint}


class _Shown(dict[str, Any]):
    """A missing detail shows as its name, so that an error about an error never hides the first one."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


# --- no tenant, or not this one -----------------------------------------------------------------------------------


class NoTenant(TenantryError):
    """No tenant is set here."""

    code = "tenant.none"
    remedy = "Run this inside a request behind TenantMiddleware, or inside `with tenant_context(tenant):`."


class TenantNotFound(TenantryError):
    """There is no tenant '{slug}'."""

    code = "tenant.not_found"
    remedy = "`tenantry tenant list` names them all."
    status = 404
    exit_code = 4


class TenantNotServed(TenantryError):
    """The tenant '{slug}' is {status}."""

    code = "tenant.not_served"
    remedy = "`tenantry tenant show {slug}` tells why; `tenantry tenant resume {slug}` ends a suspension."
    status = 403
    exit_code = 3


class ForeignTenant(TenantryError):
    """This belongs to the tenant '{owner}', and the current tenant is '{current}'."""

    code = "tenant.foreign"
    remedy = "Open a session of its own inside each tenant's context."


class AutocommitRefused(TenantryError):
    """A session on tables that tenants share works in transactions only: each of them begins with whose it is."""

    code = "session.autocommit"
    remedy = "Leave the isolation level AUTOCOMMIT away, and commit."


class SharedTablesWeak(TenantryError):
    """The shared tables in '{database}' on '{server}' do not keep tenants apart: {what}."""

    code = "tables.weak"
    remedy = "`tenantry tenant check` names all of it with its remedies; no session is opened there until it is mended."
    status = 503
    exit_code = 3


class RuntimeMissing(TenantryError):
    """No runtime is connected in this process."""

    code = "runtime.missing"
    remedy = 'Call `tenantry.connect("tenantry.toml")` when the application starts.'


class DatabasesBusy(TenantryError):
    """All {limit} tenant databases that this process may keep open are in use."""

    code = "databases.busy"
    remedy = "Try again, raise runtime.open_databases in tenantry.toml, or look for sessions that are never closed."
    status = 503


class ServerBusy(TenantryError):
    """No connection to the server '{server}' came free within {seconds} s: {reason}."""

    code = "server.busy"
    remedy = (
        "Try again; raise `connections` of the server '{server}', or look for sessions that are never closed: "
        "the log names them."
    )
    status = 503


class SchemaBehind(TenantryError):
    """The tenant '{slug}' is at schema {has}, and this application needs {needs}."""

    code = "schema.behind"
    remedy = "Run `tenantry migrate run`, then try again."
    status = 503


class ForeignSession(TenantryError):
    """This session belongs to another tenant."""

    code = "session.foreign"
    remedy = "Sign in here."
    status = 401


class SignInRefused(TenantryError):
    """The login or the password is wrong."""

    code = "account.refused"
    remedy = "Check both, and that the account is active."
    status = 401
    exit_code = 3


class AccountError(TenantryError):
    """The account could not be changed."""

    code = "account.invalid"
    remedy = "Correct the value and try again."
    status = 422
    exit_code = 2


# --- names --------------------------------------------------------------------------------------------------------


class InvalidSlug(TenantryError):
    """'{slug}' is no slug: {reason}."""

    code = "slug.invalid"
    remedy = "Use 1 to 63 letters a-z, digits and single hyphens, with a letter or digit at both ends."
    status = 422
    exit_code = 2


class ReservedSlug(TenantryError):
    """'{slug}' is reserved."""

    code = "slug.reserved"
    remedy = "Choose another slug, or remove it from platform.reserved in tenantry.toml."
    status = 409
    exit_code = 3


class SlugTaken(TenantryError):
    """'{slug}' is taken."""

    code = "slug.taken"
    remedy = "Choose another slug."
    status = 409
    exit_code = 3


class InvalidHost(TenantryError):
    """'{host}' is no host name: {reason}."""

    code = "host.invalid"
    remedy = "Use a DNS name such as www.example.com."
    status = 400
    exit_code = 2


class UnknownHost(TenantryError):
    """Nothing is served at '{host}'."""

    code = "host.unknown"
    remedy = "`tenantry why {host}` tells which rule was tried."
    status = 404
    exit_code = 4


class HostTaken(TenantryError):
    """The host name '{host}' leads to another tenant."""

    code = "host.taken"
    remedy = "Choose another host name, or remove it there first."
    status = 409
    exit_code = 3


class PathEscape(TenantryError):
    """The path '{path}' leads out of the tenant's directory."""

    code = "path.escape"
    remedy = "Use a relative path without '..', absolute parts or links that lead outside."
    status = 400
    exit_code = 3


class InvalidToken(TenantryError):
    """The token is refused: {reason}."""

    code = "token.invalid"
    remedy = "Obtain a new token."
    status = 401


# --- describing a platform ----------------------------------------------------------------------------------------


class ConfigError(TenantryError):
    """{where}: {reason}."""

    code = "config.invalid"
    remedy = "Correct it, then run `tenantry config check`."
    status = 422
    exit_code = 2


class ConfigMissing(TenantryError):
    """There is no '{path}'."""

    code = "config.missing"
    remedy = "Run `tenantry init` to write one, or name another with --config."
    exit_code = 4


class UnknownSetting(TenantryError):
    """There is no setting '{key}'."""

    code = "config.unknown"
    remedy = "`tenantry config explain` names them all."
    exit_code = 4


class AlreadyThere(TenantryError):
    """'{path}' is already there."""

    code = "file.exists"
    remedy = "Choose another directory, or overwrite it with --force; .env stays in any case."
    exit_code = 3


class UsageError(TenantryError):
    """'{given}' is not of the form {wanted}."""

    code = "usage"
    remedy = "Add --help to the command to see how it is used."
    status = 422
    exit_code = 2


class SecretKeyError(TenantryError):
    """TENANTRY_SECRET_KEY {reason}."""

    code = "secret.key"
    remedy = (
        'Make one with `python3 -c "import secrets; print(secrets.token_hex(32))"` and put '
        "TENANTRY_SECRET_KEY=… into the environment or into .env beside tenantry.toml."
    )
    exit_code = 2


class SealBroken(TenantryError):
    """The sealed value '{field}' of tenant '{tenant}' cannot be opened."""

    code = "secret.broken"
    remedy = "It was changed, moved from another tenant, or sealed with a key that is not at hand."


# --- changing a platform ------------------------------------------------------------------------------------------


class LimitReached(TenantryError):
    """The limit {limit} = {value} is reached."""

    code = "limit.reached"
    remedy = "Raise {limit} in tenantry.toml, or remove what is no longer needed."
    status = 409
    exit_code = 3


class MoveRefused(TenantryError):
    """A tenant that is {status} cannot become {target}."""

    code = "tenant.move_refused"
    remedy = "`tenantry tenant show {slug}` shows what is under way."
    status = 409
    exit_code = 3


class OperationInProgress(TenantryError):
    """'{slug}' is busy: operation {operation} ({verb}) is {state}."""

    code = "operation.in_progress"
    remedy = "Follow it with `tenantry operation watch {operation}`, then try again."
    status = 409
    exit_code = 3


class OperationNotFound(TenantryError):
    """There is no operation '{operation}'."""

    code = "operation.not_found"
    remedy = "`tenantry operation list` names the latest."
    status = 404
    exit_code = 4


class OperationRefused(TenantryError):
    """An operation that is {state} cannot be {action}."""

    code = "operation.refused"
    remedy = "`tenantry operation show {operation}` shows its steps."
    status = 409
    exit_code = 3


class OperationFailed(TenantryError):
    """Operation {operation} ({verb}) failed: {reason}"""

    code = "operation.failed"
    remedy = (
        "`tenantry operation show {operation}` shows its steps; `tenantry operation resume {operation}` tries again."
    )


class Cancelled(TenantryError):
    """The operation was cancelled."""

    code = "operation.cancelled"
    remedy = "What it had made was undone."


class Paused(TenantryError):
    """The operation {operation} is paused."""

    code = "operation.paused"
    remedy = "Go on with `tenantry operation resume {operation}`; what is done stays as it is."


class Fenced(TenantryError):
    """Another worker has taken operation {operation} over."""

    code = "operation.fenced"
    remedy = "Nothing to do: the other worker ends it."


class Handover(TenantryError):
    """This worker is asked to end."""

    code = "operation.handover"
    remedy = "Nothing to do: another worker goes on."


class SharedInUse(TenantryError):
    """The shared database '{database}' on '{server}' is not dropped: {what}."""

    code = "server.shared_in_use"
    remedy = "`tenantry server show {server}` names the shared databases there, and how many tenants each has."
    status = 409
    exit_code = 3


class NotConfirmed(TenantryError):
    """'{slug}' was not confirmed."""

    code = "confirm.missing"
    remedy = "Type the name when asked, or pass --yes."
    status = 409
    exit_code = 3


# --- parts of a tenant --------------------------------------------------------------------------------------------


class ResourceError(TenantryError):
    """{kind} '{resource}' of '{tenant}': {reason}."""

    code = "resource.failed"
    remedy = "`tenantry tenant check {tenant}` shows what is there."


class LoginRefused(ResourceError):
    """{kind} '{resource}' of '{tenant}': the server '{server}' refuses its login{why}."""

    code = "resource.login_refused"
    remedy = "`tenantry tenant rotate {tenant}` makes a new one."


class ServerUnknown(TenantryError):
    """There is no server '{server}'."""

    code = "server.unknown"
    remedy = "Known servers: {known}. Add it below [servers] in tenantry.toml, or with `tenantry server add`."
    status = 404
    exit_code = 4


class NoServer(TenantryError):
    """There is no server for {kind} '{resource}': {reason}."""

    code = "server.none"
    remedy = "`tenantry server list` shows state and room of each; add one, or raise its capacity."
    status = 409
    exit_code = 3


class ServerUnavailable(TenantryError):
    """The server '{server}' cannot be reached: {reason}."""

    code = "server.unavailable"
    remedy = "Its tenants are served again as soon as it answers; `tenantry server check {server}` tells more."
    status = 503


class ServerUnfit(TenantryError):
    """The server '{server}' cannot be used: {reason}."""

    code = "server.unfit"
    remedy = "`tenantry server check {server}` names everything that is missing."
    status = 422
    exit_code = 3


class ServerTaken(TenantryError):
    """There is a server '{server}' already."""

    code = "server.taken"
    remedy = "Choose another name, or change that one with `tenantry server set {server}`."
    status = 409
    exit_code = 3


class ServerDeclared(TenantryError):
    """The server '{server}' is declared in tenantry.toml."""

    code = "server.declared"
    remedy = "Change it there, below [servers.{server}]; only its state is changed by command."
    status = 409
    exit_code = 3


class ServerInUse(TenantryError):
    """The server '{server}' cannot be removed: {what}."""

    code = "server.in_use"
    remedy = (
        "`tenantry server drain {server}` keeps new tenants away; `tenantry server show {server}` names those there."
    )
    status = 409
    exit_code = 3


class NoLogin(TenantryError):
    """'{slug}' has no login on a server{where}."""

    code = "tenant.no_login"
    remedy = (
        "Only parts that lie on servers have one; `tenantry tenant show {slug}` names its parts. "
        "A login that tenants share changes with `tenantry tenant rotate --all`."
    )
    status = 404
    exit_code = 4


class NameTaken(TenantryError):
    """There is a {kind} '{name}' on the server '{server}' that belongs to somebody else."""

    code = "server.name_taken"
    remedy = "Nothing of it was touched. Take it over with `tenantry tenant adopt`, remove it, or choose another slug."
    status = 409
    exit_code = 3


class UnknownKind(TenantryError):
    """There is no resource kind '{kind}'."""

    code = "resource.unknown_kind"
    remedy = "Known kinds: {known}. Others register through the entry-point group tenantry.resources."
    exit_code = 2


class MigrationError(TenantryError):
    """{migration}: {reason}."""

    code = "migration.failed"
    remedy = "Correct the migration, then run `tenantry migrate run` again; the finished tenants are skipped."


class RowsUnsafe(TenantryError):
    """Tenants cannot share the tables of the database '{database}': {reason}"""

    code = "rows.unsafe"
    remedy = "docs/explanation/shared-tables.md tells what each protection is for."
    exit_code = 3


class MigrationInvalid(TenantryError):
    """{path}: {reason}."""

    code = "migration.invalid"
    remedy = "Name migrations like 0001_name.sql, numbered without gaps, and leave the applied ones as they are."
    exit_code = 2


class MigrationUnderWay(TenantryError):
    """The fleet is being migrated already: operation {operation} is {state}."""

    code = "migration.under_way"
    remedy = (
        "Follow it with `tenantry operation watch {operation}`; a paused one goes on by `tenantry operation resume "
        "{operation}`, or ends by `tenantry operation cancel {operation}`."
    )
    status = 409
    exit_code = 3


class SharedTables(TenantryError):
    """'{slug}' shares its tables of {resource} with other tenants, in {database} on {server}."""

    code = "migration.shared"
    remedy = "One tenant's schema cannot differ there: migrate all of them, with `tenantry migrate run [--to VERSION]`."
    status = 409
    exit_code = 3


class AuditBroken(TenantryError):
    """The audit log was changed: {reason}."""

    code = "audit.broken"
    remedy = "Compare it with a backup of the control database from before entry {seq}."


class RegistryUnavailable(TenantryError):
    """The control database cannot be reached: {reason}."""

    code = "registry.unavailable"
    remedy = "Check platform.control in tenantry.toml and that the server runs."
    status = 503


class RegistryMissing(TenantryError):
    """There is no control database '{path}', but there are tenants in '{tenants}'."""

    code = "registry.missing"
    remedy = "Put the control database back from a backup. To begin anew without these tenants, move '{tenants}' away."
    exit_code = 4


class RegistryBehind(TenantryError):
    """The control database is at revision {revision}, and this version of Tenantry needs {newest}."""

    code = "registry.behind"
    remedy = "Run `tenantry registry migrate` once, on any host; running processes of the old version go on."
    status = 503
    exit_code = 3


class RegistryInUse(TenantryError):
    """The control database is in use: {reason}."""

    code = "registry.in_use"
    remedy = "End every `tenantry worker`, wait until `tenantry operation list` names nothing that runs, and try again."
    status = 409
    exit_code = 3


class RegistryNotEmpty(TenantryError):
    """The database '{where}' is not empty: it has {found}."""

    code = "registry.not_empty"
    remedy = "Name an empty database; nothing was changed in this one."
    status = 409
    exit_code = 3


class CopyFailed(TenantryError):
    """The copy failed at table '{table}': {reason}."""

    code = "registry.copy"
    remedy = "The control database is as it was, and the other one is empty."


class EmbeddedFailed(TenantryError):
    """The embedded PostgreSQL does not run: {reason}."""

    code = "embedded.failed"
    remedy = "Its log is '{log}'."
    status = 503


class ProcessFailed(TenantryError):
    """`{program}` ended with {status}: {output}"""

    code = "process.failed"
    remedy = "Run it by hand to see why."

"""The control database's tables. `migrations/` makes them; a test proves that both agree."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    select,
    text,
)


class Moment(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no time zone and a server gives its own: both are put right on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id: Final = String(36)
Name: Final = String(200)
Slug: Final = String(63).with_variant(String(63, collation="C"), "postgresql")
"""Ordered by its characters on every database, whatever the language of the server."""
Count: Final = BigInteger().with_variant(Integer, "sqlite")
"""What grows with every change. Only INTEGER, of 64 bits there, is SQLite's own row number."""

meta = Table(
    "meta",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

organization = Table(
    "organization",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Name, nullable=False, unique=True),
    Column("mail", String(254), nullable=False),  # of its administrator
    Column("created", Moment, nullable=False),
)

sso = Table(
    "sso",
    metadata,
    Column("organization_id", ForeignKey("organization.id"), primary_key=True),
    Column("preset", String(16), nullable=False),  # oidc, entra, saml
    Column("issuer", String(500), nullable=False),
    Column("client_id", String(255), nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed with the platform key
    Column("default_role", String(10), nullable=False),  # "" keeps out whoever has no role by a claim
    Column("claim", String(100), nullable=False),  # that holds groups or app roles; "": none
    Column("roles", JSON, nullable=False),  # what the claim says: the role
    Column("only", Boolean, nullable=False),  # whether passwords open nothing
    Column("metadata_url", String(500), nullable=False, server_default=""),  # of a SAML provider
    Column("metadata", Text, nullable=False, server_default=""),  # where it has no such address
    Column("changed", Moment, nullable=False),
    Column("way", String(36), nullable=False, server_default=""),  # new with each provider: sessions of others are over
    Column("worked", Moment),  # when somebody first came in by it as it is set up
)

sso_domain = Table(
    "sso_domain",
    metadata,
    Column("organization_id", ForeignKey("organization.id"), primary_key=True),
    Column("domain", String(253), primary_key=True, index=True),
    Column("token", String(64), nullable=False),  # what its TXT record has to hold
    Column("proven", Moment),
)

sso_code = Table(
    "sso_code",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256
    Column("environment_id", Id, nullable=False),
    Column("browser", String(64), nullable=False),  # SHA-256 of the cookie at the tenant
    Column("person", LargeBinary, nullable=False),  # sealed with the platform key
    Column("until", Moment, nullable=False),
)

sso_session = Table(
    "sso_session",
    metadata,
    Column("id", Id, primary_key=True),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("tenant_id", Id, nullable=False),
    Column("environment_id", Id, nullable=False),
    Column("subject", String(255), nullable=False),
    Column("sid", String(255), nullable=False),
    Column("until", Moment, nullable=False, index=True),
    Index("ix_sso_session_subject", "organization_id", "subject"),
    Index("ix_sso_session_sid", "organization_id", "sid"),
)

scim = Table(
    "scim",
    metadata,
    Column("organization_id", ForeignKey("organization.id"), primary_key=True),
    Column("required", Boolean, nullable=False),  # whether nobody else signs in by the organization
    Column("created", Moment, nullable=False),
)

scim_token = Table(
    "scim_token",
    metadata,
    Column("id", Id, primary_key=True),
    Column("organization_id", ForeignKey("organization.id"), nullable=False, index=True),
    Column("name", Name, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256
    Column("created", Moment, nullable=False),
    Column("used", Moment),
)

scim_person = Table(
    "scim_person",
    metadata,
    Column("id", Id, primary_key=True),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("external_id", String(255)),
    Column("user_name", String(254), nullable=False),
    Column("folded", String(254), nullable=False),  # the user name in small letters: the mail address it is
    Column("held", String(254)),  # the same while the person is there
    Column("mail", String(254), nullable=False),  # another address by which she signs in; "": none
    Column("display", Name, nullable=False),
    Column("shown", Name, nullable=False),  # the same as it is searched
    Column("details", JSON, nullable=False),  # her name in parts, her addresses
    Column("active", Boolean, nullable=False),
    Column("issuer", String(500)),  # as whom a provider asserted her the last time she signed in
    Column("subject", String(255)),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Column("gone", Moment),  # when the directory deleted her
    UniqueConstraint("organization_id", "held"),
    Index("ix_scim_person_external", "organization_id", "external_id"),
    Index("ix_scim_person_folded", "organization_id", "folded"),
    Index("ix_scim_person_mail", "organization_id", "mail"),
    Index("ix_scim_person_subject", "organization_id", "subject"),
    Index("ix_scim_person_created", "organization_id", "created", "id"),
)

scim_group = Table(
    "scim_group",
    metadata,
    Column("id", Id, primary_key=True),
    Column("organization_id", ForeignKey("organization.id"), nullable=False, index=True),
    Column("external_id", String(255)),
    Column("display", String(255), nullable=False),
    Column("shown", String(255), nullable=False),  # the same as it is searched
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("version", Integer, nullable=False),
)

scim_member = Table(
    "scim_member",
    metadata,
    Column("group_id", ForeignKey("scim_group.id"), primary_key=True),
    Column("person_id", ForeignKey("scim_person.id"), primary_key=True, index=True),
)

scim_mark = Table(
    "scim_mark",
    metadata,
    Column("person_id", ForeignKey("scim_person.id"), primary_key=True),
    Column("environment_id", Id, primary_key=True),  # where what became of her is to be carried out yet
    Column("turn", Integer, nullable=False),  # another one for each change
    Column("ends", Boolean, nullable=False),  # whether her sessions end though she stays
    Column("tries", Integer, nullable=False),
    Column("due", Moment, nullable=False, index=True),
    Column("taken", Moment),  # until when a worker has it for itself
)

scim_shut = Table(
    "scim_shut",
    metadata,
    Column("environment_id", Id, primary_key=True),
    Column("user_id", Id, primary_key=True),  # of the tenant's own, who was disabled since she left
    Column("organization_id", ForeignKey("organization.id"), nullable=False, index=True),
)

tenant = Table(
    "tenant",
    metadata,
    Column("id", Id, primary_key=True),
    Column("slug", Slug, nullable=False, unique=True),
    Column("name", Name, nullable=False),
    Column("folded", Text, nullable=False),  # the name as it is searched
    Column("blueprint", Name, nullable=False, index=True),
    Column("plan", Name),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False, server_default=""),  # why it is suspended
    Column("client_id", String(10), nullable=False, unique=True),
    Column("organization_id", ForeignKey("organization.id"), index=True),
    Column("settings", JSON, nullable=False),
    Column("support_until", Moment),  # how long its people let support in, where the platform asks for that
    Column("key_turns", JSON(none_as_null=True)),  # [[number, since], …] of its token keys; null: none out of turn
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Index("ix_tenant_created", "created", "slug"),
    Index("ix_tenant_status", "status", "slug"),
)

former_slug = Table(
    "former_slug",
    metadata,
    Column("slug", Slug, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False, index=True),
    Column("until", Moment, nullable=False),
)

environment = Table(
    "environment",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("home", Text, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

resource = Table(
    "resource",
    metadata,
    Column("environment_id", ForeignKey("environment.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("kind", Name, nullable=False),
    Column("location", Text, nullable=False),
    Column("version", Text),  # the stem of a file's name, however long
    Column("server", Name),  # no foreign key: a server of tenantry.toml may have been removed there
    Column("sealed", LargeBinary),  # the login on that server
    Column("pinned", Boolean, nullable=False, server_default=false()),  # fleet migrations leave it at its version
    Column("used_bytes", Count),  # what it took up when a worker last measured it
    Column("used_rows", Count),
    Column("used_files", Count),
    Column("measured", Moment),  # when it was last tried
    Index("ix_resource_version", "kind", "version"),
    Index("ix_resource_pinned", "pinned"),
    Index("ix_resource_server", "server", "used_bytes", "used_rows", "used_files", "measured"),  # sums need no table
    Index("ix_resource_used", "environment_id", "used_bytes"),
)

server = Table(
    "server",
    metadata,
    Column("name", Name, primary_key=True),
    Column("kind", Name, nullable=False),
    Column("address", Text, nullable=False),  # URL without user and password
    Column("sealed", LargeBinary),  # the administrator's URL; none where tenantry.toml declares the server
    Column("capacity", Integer),
    Column("connections", Integer, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("state", String(12), nullable=False),
    Column("created", Moment, nullable=False),
)

shared_login = Table(
    "shared_login",
    metadata,
    Column("server", Name, primary_key=True),
    Column("database", Name, primary_key=True),  # tenants share it
    Column("sealed", LargeBinary, nullable=False),  # the login applications use there
    Column("created", Moment, nullable=False),
)

hostname = Table(
    "hostname",
    metadata,
    Column("name", String(253), primary_key=True),
    Column("environment_id", ForeignKey("environment.id"), nullable=False, index=True),
    Column("position", Integer, nullable=False),  # 0: the canonical one
    Column("custom", Boolean, nullable=False),  # named by the tenant, not made from the blueprint's pattern
    Column("former_until", Moment),  # since a rename it redirects, until then
)

data_key = Table(
    "data_key",
    metadata,
    Column("tenant_id", ForeignKey("tenant.id"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

secret = Table(
    "secret",
    metadata,
    Column("tenant_id", ForeignKey("tenant.id"), primary_key=True),
    Column("field", Name, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

operation = Table(
    "operation",
    metadata,
    Column("id", Id, primary_key=True),
    Column("verb", String(20), nullable=False),
    Column("tenant_id", Id, index=True),  # no foreign key: the record outlives a destroyed tenant
    Column("tenant_slug", String(63)),
    Column("arguments", JSON, nullable=False),
    Column("state", String(12), nullable=False, index=True),
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("error", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("actor", Name, nullable=False),
    Column("worker_id", Id),
    Column("fence", Integer, nullable=False, server_default="0"),  # counted up by every worker that takes it
    Column("created", Moment, nullable=False),
    Column("started", Moment),
    Column("ended", Moment),
    Column("due", Moment),  # queued, but not to be taken before
    Index("ix_operation_slug", "tenant_slug", "id"),
    Index("ix_operation_verb", "verb", "id"),
)

operation_step = Table(
    "operation_step",
    metadata,
    Column("operation_id", ForeignKey("operation.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Name, nullable=False),
    Column("kind", Name, nullable=False, server_default=""),
    Column("state", String(12), nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    Column("seconds", Float),
)

operation_item = Table(
    "operation_item",
    metadata,
    Column("operation_id", ForeignKey("operation.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("step", Integer, nullable=False),  # position of the step that works on it
    Column("lane", Name, nullable=False, server_default=""),  # those of one lane take turns: the server they lie on
    Column("subject", Name, nullable=False),  # the tenant's slug
    Column("arguments", JSON, nullable=False),
    Column("state", String(12), nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    Column("error", JSON(none_as_null=True)),
    Column("seconds", Float),
    Index("ix_operation_item_lane", "operation_id", "step", "state", "lane", "position"),
)

operation_digest = Table(
    "operation_digest",
    metadata,
    Column("operation_id", ForeignKey("operation.id"), primary_key=True),
    Column("content", Text, nullable=False),  # JSON: what all its items say together, read once, when it was over
)

tenant_lock = Table(
    "tenant_lock",
    metadata,
    Column("tenant_id", Id, primary_key=True),
    Column("operation_id", ForeignKey("operation.id"), nullable=False, index=True),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", Name, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", Moment, nullable=False),
    Column("heartbeat", Moment, nullable=False),
    Column("concurrency", Integer, nullable=False),
)

change = Table(
    "change",
    metadata,
    Column("tenant_id", Id, primary_key=True),  # no foreign key: that a tenant is gone is a change, too
    Column("seq", Count, nullable=False, unique=True),  # of its newest change
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Count, primary_key=True, autoincrement=False),
    Column("at", String(27), nullable=False),  # text, because it is part of what is hashed
    Column("actor", Name, nullable=False),
    Column("action", Name, nullable=False),
    Column("subject", Name, nullable=False, index=True),
    Column("detail", Text, nullable=False),  # canonical JSON, for the same reason
    Column("hash", String(64), nullable=False),
    Index("ix_audit_actor", "actor", "seq"),
    Index("ix_audit_action", "action", "seq"),
    Index("ix_audit_at", "at"),
)

head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("audit_seq", Count, nullable=False),
    Column("audit_hash", String(64), nullable=False),
    Column("change_seq", Count, nullable=False),
    Column("seal", String(64), nullable=False),  # HMAC of the head, so that cutting off the newest entries shows
)

admin_user = Table(
    "admin_user",
    metadata,
    Column("id", Id, primary_key=True),
    Column("mail", String(254), nullable=False, unique=True),  # in small letters
    Column("name", Name, nullable=False),
    Column("role", String(10), nullable=False),
    Column("password", Text),  # Argon2id; none until the invitation is taken
    Column("active", Boolean, nullable=False),
    Column("totp", LargeBinary),  # the sealed secret of the second factor
    Column("totp_used", Count, nullable=False, server_default="0"),  # the time step of the last code: none counts twice
    Column("created", Moment, nullable=False),
    Column("seen", Moment),
)

admin_tenant = Table(
    "admin_tenant",
    metadata,
    Column("admin_id", ForeignKey("admin_user.id"), primary_key=True),
    Column("tenant_id", ForeignKey("tenant.id"), primary_key=True, index=True),
)

admin_session = Table(
    "admin_session",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the cookie's 256 random bits
    Column("admin_id", ForeignKey("admin_user.id"), nullable=False, index=True),
    Column("address", String(45), nullable=False),
    Column("agent", Name, nullable=False),
    Column("created", Moment, nullable=False),
    Column("proved", Moment, nullable=False),  # when its owner last showed a password or a passkey
    Column("seen", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
)

admin_link = Table(
    "admin_link",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("admin_id", ForeignKey("admin_user.id"), index=True),  # none yet: that of the first superadmin
    Column("purpose", String(10), nullable=False),  # invite, reset, forgot, first
    Column("expires", Moment, nullable=False),
)

recovery_code = Table(
    "recovery_code",
    metadata,
    Column("admin_id", ForeignKey("admin_user.id"), primary_key=True),
    Column("digest", String(64), primary_key=True),
)

passkey = Table(
    "passkey",
    metadata,
    Column("id", String(1400), primary_key=True),  # the credential's, at most 1,023 octets, in base64url
    Column("admin_id", ForeignKey("admin_user.id"), nullable=False, index=True),
    Column("name", Name, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", Count, nullable=False),
    Column("created", Moment, nullable=False),
    Column("used", Moment),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", Id, primary_key=True),
    Column("admin_id", ForeignKey("admin_user.id"), nullable=False, index=True),
    Column("name", Name, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of its 256 random bits
    Column("scopes", JSON, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("used", Moment),
    UniqueConstraint("admin_id", "name"),
)

throttle = Table(
    "throttle",
    metadata,
    Column("key", String(64), primary_key=True),  # a hash of what is counted: a purpose, a login, an address
    Column("failures", Integer, nullable=False),
    Column("until", Moment, nullable=False, index=True),  # before, no further try is looked at
)

spent = Table(
    "spent",
    metadata,
    Column("digest", String(64), primary_key=True),  # of what counts once: the challenge that a passkey signed
    Column("until", Moment, nullable=False, index=True),  # when it would be too old in any case
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", String(64), primary_key=True),  # a hash of who asked and of the key that came with it
    Column("request", String(64), nullable=False),  # a hash of what was asked
    Column("status", Integer),  # none: it is being answered
    Column("body", Text),
    Column("created", Moment, nullable=False, index=True),
)

support_access = Table(
    "support_access",
    metadata,
    Column("id", Id, primary_key=True),
    Column("admin_id", ForeignKey("admin_user.id"), index=True),  # none: a command, or somebody who is forgotten
    Column("tenant_id", Id, nullable=False, index=True),  # no foreign key: rows and tenants go at different times
    Column("who", Name, nullable=False),
    Column("reason", Text, nullable=False),
    Column("writes", Boolean, nullable=False),
    Column("link", String(64), unique=True),  # a hash; none once it was followed
    Column("link_until", Moment, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
    Column("used", Moment),
    Column("ended", Moment),
)

sign_up = Table(
    "sign_up",
    metadata,
    Column("id", Id, primary_key=True),
    Column("held", Slug, unique=True),  # the slug, until the tenant has it itself
    Column("slug", Slug, nullable=False),
    Column("name", Name, nullable=False),  # of the person
    Column("mail", String(254), nullable=False),
    Column("organization", Name, nullable=False),  # what the tenant is called
    Column("address", String(45), nullable=False),
    Column("ticket", String(64), nullable=False, unique=True),  # a hash: what the browser shows that goes on with it
    Column("link", String(64), unique=True),  # a hash; none once it was used
    Column("code", String(64)),  # a keyed hash: six digits are soon tried out otherwise
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("terms", String(40)),  # the version that was accepted
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
    Column("tenant_id", Id),  # once it is confirmed; no foreign key: rows and tenants go at different times
    Column("operation_id", Id),
)

sign_up_invitation = Table(
    "sign_up_invitation",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("mail", String(254)),  # whose it is; none: whoever holds it
    Column("by", Name, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("used", Moment),
)

trial = Table(
    "trial",
    metadata,
    Column("tenant_id", ForeignKey("tenant.id"), primary_key=True),
    Column("mail", String(254), nullable=False),  # who is told
    Column("until", Moment, nullable=False, index=True),
    Column("reminded", Float),  # seconds before the end that the last reminder was about
    Column("ended", Moment),
    Column("warned", Moment),  # that it is removed soon
)

welcome = Table(
    "welcome",
    metadata,
    Column("tenant_id", ForeignKey("tenant.id"), primary_key=True),
    Column("step", Integer, nullable=False),  # of the wizard, that comes next
)

counted = Table(
    "counted",
    metadata,
    Column("tenant_id", Id, primary_key=True),  # no foreign key: rows and tenants go at different times
    Column("name", Name, primary_key=True),  # "users", and what the blueprint counts
    Column("number", Count, nullable=False),
    Column("at", Moment, nullable=False),
)

day_total = Table(
    "day_total",
    metadata,
    Column("day", String(10), primary_key=True),  # 2026-11-21, in UTC
    Column("name", Name, primary_key=True),  # "api": requests to the API; "counted:users": how many there were
    Column("number", Count, nullable=False),
)

letter = Table(
    "letter",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", String(40), nullable=False),  # "admin.invite", and such
    Column("state", String(8), nullable=False),  # queued, sent, failed, held
    Column("recipient", String(254), nullable=False, index=True),
    Column("tenant_id", Id, index=True),  # no foreign key: rows and tenants go at different times
    Column("subject", Text, nullable=False),
    Column("sealed", LargeBinary),  # what it says, since it may hold a link; none once it was sent
    Column("once", String(64), unique=True),  # a hash of what is told once, however often it is asked for
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("claim", Id),  # of the worker that tries it, until it is due again
    Column("created", Moment, nullable=False),
    Column("due", Moment, index=True),  # when it is tried next; none where it is not
    Column("until", Moment),  # afterwards it is not worth sending: its link opens nothing any more
    Column("ended", Moment),
    Column("reason", Text, nullable=False, server_default=""),  # why it is not sent (yet)
    Index("ix_letter_state", "state", "id"),
)

mail_hold = Table(
    "mail_hold",
    metadata,
    Column("address", String(254), primary_key=True),  # nothing is sent there
    Column("reason", Text, nullable=False),
    Column("since", Moment, nullable=False),
)

mail_key = Table(
    "mail_key",
    metadata,
    Column("selector", String(63), primary_key=True),  # where its public half stands in DNS (RFC 6376)
    Column("algorithm", String(10), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("record", Text, nullable=False),  # what stands there
    Column("created", Moment, nullable=False),
)

LIVE = text("state IN ('queued', 'running', 'pausing', 'cancelling')")
"""The states in which a worker has an operation, or is to take it."""


def tenants_of(admin_id: str) -> Select[Any]:
    """The ids of the tenants that are assigned to an admin."""
    return select(admin_tenant.c.tenant_id).where(admin_tenant.c.admin_id == admin_id)

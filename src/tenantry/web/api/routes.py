"""At which address each verb is called: the one table from which the API, its description and its client are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tenantry.identity import RIGHTS, Right


@dataclass(frozen=True, slots=True)
class Route:
    """A verb's address."""

    method: str
    path: str  # below /api; names in braces are arguments of the verb
    verb: str
    status: int = 200

    @property
    def right(self) -> Right:
        """What it takes to call it."""
        return RIGHTS[self.verb]


ROUTES: Final = (
    Route("GET", "/platform", "platform.status"),
    Route("GET", "/statistics", "platform.statistics"),
    Route("GET", "/settings", "platform.settings"),
    Route("GET", "/tenants", "tenant.list"),
    Route("POST", "/tenants", "tenant.create", 202),
    Route("POST", "/tenants/-/plan", "tenant.plan_create"),
    Route("GET", "/tenants/-/slugs/{slug}", "tenant.slug"),
    Route("POST", "/tenants/-/import", "tenant.import", 202),
    Route("POST", "/tenants/-/rotate", "tenant.rotate", 202),
    Route("POST", "/tenants/-/announce", "tenant.announce"),
    Route("GET", "/tenants/{slug}", "tenant.show"),
    Route("PATCH", "/tenants/{slug}", "tenant.edit", 202),
    Route("DELETE", "/tenants/{slug}", "tenant.destroy", 202),
    Route("GET", "/tenants/{slug}/destroy", "tenant.plan_destroy"),
    Route("POST", "/tenants/{slug}/rename", "tenant.rename", 202),
    Route("POST", "/tenants/{slug}/suspend", "tenant.suspend", 202),
    Route("POST", "/tenants/{slug}/resume", "tenant.resume", 202),
    Route("POST", "/tenants/{slug}/activate", "tenant.activate", 202),
    Route("POST", "/tenants/{slug}/check", "tenant.check"),
    Route("GET", "/tenants/{slug}/usage", "tenant.measure"),
    Route("GET", "/tenants/{slug}/caveats", "tenant.caveats"),
    Route("POST", "/tenants/{slug}/credentials", "tenant.credentials"),
    Route("POST", "/tenants/{slug}/login", "tenant.login"),
    Route("POST", "/tenants/{slug}/rotate-keys", "tenant.rotate_keys"),
    Route("GET", "/tenants/{slug}/events", "tenant.events"),
    Route("GET", "/tenants/{slug}/leftovers", "tenant.leftovers"),
    Route("POST", "/tenants/{slug}/support", "support.open", 201),
    Route("POST", "/tenants/{slug}/support/{access}/end", "support.end"),
    Route("GET", "/support", "support.list"),
    Route("GET", "/signups", "signup.list"),
    Route("GET", "/signups/-/invitations", "signup.invitations"),
    Route("POST", "/signups/-/invitations", "signup.invite", 201),
    Route("DELETE", "/signups/-/invitations/{invitation}", "signup.uninvite", 204),
    Route("GET", "/hostnames", "hostname.list"),
    Route("POST", "/hostnames", "hostname.add", 201),
    Route("DELETE", "/hostnames/{host}", "hostname.remove"),
    Route("GET", "/operations", "operation.list"),
    Route("GET", "/operations/-/workers", "operation.workers"),
    Route("GET", "/operations/{operation_id}", "operation.show"),
    Route("GET", "/operations/{operation_id}/items", "operation.items"),
    Route("POST", "/operations/{operation_id}/resume", "operation.resume", 202),
    Route("POST", "/operations/{operation_id}/pause", "operation.pause", 202),
    Route("POST", "/operations/{operation_id}/cancel", "operation.cancel", 202),
    Route("GET", "/servers", "server.list"),
    Route("POST", "/servers", "server.add", 201),
    Route("POST", "/servers/-/plan", "server.plan_add"),
    Route("POST", "/servers/-/check", "server.check"),
    Route("GET", "/servers/{name}", "server.show"),
    Route("PATCH", "/servers/{name}", "server.set"),
    Route("DELETE", "/servers/{name}", "server.remove", 204),
    Route("POST", "/servers/{name}/open", "server.open"),
    Route("POST", "/servers/{name}/drain", "server.drain"),
    Route("POST", "/servers/{name}/close", "server.close"),
    Route("GET", "/migrations", "migrate.status"),
    Route("POST", "/migrations", "migrate.run", 202),
    Route("POST", "/migrations/-/plan", "migrate.plan"),
    Route("GET", "/migrations/-/under-way", "migrate.under_way"),
    Route("POST", "/migrations/-/rollback", "migrate.rollback", 202),
    Route("POST", "/migrations/-/unpin", "migrate.unpin"),
    Route("POST", "/migrations/-/rehearse", "migrate.rehearse", 202),
    Route("GET", "/migrations/-/rehearsals/{operation_id}", "migrate.rehearsal"),
    Route("GET", "/migrations/{operation_id}", "migrate.report"),
    Route("GET", "/verifications", "verify.list"),
    Route("POST", "/verifications", "verify.run", 202),
    Route("GET", "/verifications/-/last", "verify.last"),
    Route("GET", "/verifications/{operation_id}", "verify.report"),
    Route("GET", "/verifications/{operation_id}/summary", "verify.summary"),
    Route("GET", "/audit", "audit.list"),
    Route("POST", "/audit/-/verify", "audit.verify"),
    Route("POST", "/secrets/-/rotate", "secret.rotate"),
    Route("GET", "/admins", "admin.list"),
    Route("POST", "/admins", "admin.invite", 201),
    Route("GET", "/admins/{admin}", "admin.show"),
    Route("PATCH", "/admins/{admin}", "admin.edit"),
    Route("DELETE", "/admins/{admin}", "admin.remove", 204),
    Route("POST", "/admins/{admin}/reset", "admin.reset", 201),
    Route("POST", "/admins/{admin}/disable", "admin.disable"),
    Route("POST", "/admins/{admin}/enable", "admin.enable"),
    Route("POST", "/admins/{admin}/assign", "admin.assign"),
    Route("POST", "/admins/{admin}/unassign", "admin.unassign"),
    Route("POST", "/admins/{admin}/end-sessions", "admin.end_sessions"),
    Route("POST", "/admins/{admin}/drop-factor", "admin.drop_factor"),
    Route("GET", "/account", "account.show"),
    Route("PATCH", "/account", "account.edit"),
    Route("POST", "/account/password", "account.password"),
    Route("POST", "/account/end-other-sessions", "account.end_other_sessions"),
    Route("DELETE", "/account/sessions/{session}", "account.end_session", 204),
    Route("GET", "/tokens", "token.list"),
    Route("POST", "/tokens", "token.create", 201),
    Route("DELETE", "/tokens/{token}", "token.revoke", 204),
    Route("GET", "/mail", "mail.status"),
    Route("GET", "/mail/letters", "mail.list"),
    Route("POST", "/mail/letters/{letter}/retry", "mail.retry"),
    Route("GET", "/mail/held", "mail.held"),
    Route("POST", "/mail/held/release", "mail.release"),
    Route("POST", "/mail/keys", "mail.dkim", 201),
    Route("GET", "/mail/check", "mail.check"),
    Route("GET", "/organizations", "org.list"),
    Route("POST", "/organizations", "org.create", 201),
    Route("GET", "/organizations/{organization}", "org.show"),
    Route("PATCH", "/organizations/{organization}", "org.edit"),
    Route("DELETE", "/organizations/{organization}", "org.remove"),
    Route("POST", "/organizations/{organization}/assign", "org.assign"),
    Route("POST", "/organizations/{organization}/unassign", "org.unassign"),
    Route("GET", "/organizations/{organization}/sso", "sso.show"),
    Route("PUT", "/organizations/{organization}/sso", "sso.set"),
    Route("DELETE", "/organizations/{organization}/sso", "sso.remove"),
    Route("POST", "/organizations/{organization}/sso/check", "sso.check"),
    Route("POST", "/organizations/{organization}/sso/trial", "sso.trial"),
    Route("POST", "/organizations/{organization}/sso/domains", "sso.add_domain"),
    Route("POST", "/organizations/{organization}/sso/domains/{domain}/prove", "sso.prove_domain"),
    Route("DELETE", "/organizations/{organization}/sso/domains/{domain}", "sso.remove_domain"),
    Route("GET", "/organizations/{organization}/scim", "scim.show"),
    Route("PATCH", "/organizations/{organization}/scim", "scim.require"),
    Route("DELETE", "/organizations/{organization}/scim", "scim.remove"),
    Route("GET", "/organizations/{organization}/scim/people", "scim.people"),
    Route("POST", "/organizations/{organization}/scim/tokens", "scim.token", 201),
    Route("DELETE", "/organizations/{organization}/scim/tokens/{token}", "scim.revoke"),
)
"""Collections' own verbs stand below `-`, which is no slug and no name of anything."""

PROVISION: Final = Route("POST", "/tenants", "tenant.create", 202)
"""The same door at /admin/tenants, for operations teams whose tools create tenants there."""

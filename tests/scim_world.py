"""Organizations whose providers tell of their people by SCIM, on a platform that is served."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from providers import Names, Provider, consent
from sso_world import Here, World, world
from tenantry.context import tenant_context
from tenantry.runtime.accounts import User

USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP: Final = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


@dataclass
class Told:
    """An organization's provider, which signs people in and tells of them."""

    world: World
    organization: str  # id
    provider: Provider
    client: httpx.AsyncClient = field(repr=False)  # with the token, at the organization's directory

    async def join(self, name: str, **more: Any) -> dict[str, Any]:
        """Somebody joins; what is answered."""
        answer = await self.client.post("/Users", json={"schemas": [USER], "userName": name, **more})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def patch(self, where: str, *operations: dict[str, Any], **headers: str) -> httpx.Response:
        """Change something."""
        body = {"schemas": [PATCH], "Operations": list(operations)}
        return await self.client.patch(where, json=body, headers=headers)

    async def set_active(self, person: str, active: bool) -> None:
        """Let somebody leave, or come back."""
        done = await self.patch(f"/Users/{person}", {"op": "replace", "path": "active", "value": active})
        assert done.status_code == 200, done.text

    async def group(self, name: str, *people: str, **more: Any) -> dict[str, Any]:
        """A group of these people."""
        members = [{"value": one} for one in people]
        answer = await self.client.post(
            "/Groups", json={"schemas": [GROUP], "displayName": name, "members": members, **more}
        )
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def found(self, kind: str, wanted: str) -> list[Any]:
        """What a filter finds."""
        answer = await self.client.get(f"/{kind}", params={"filter": wanted})
        assert answer.status_code == 200, answer.text
        found: list[Any] = answer.json()["Resources"]
        return found

    async def sign_in(self, slug: str, login: str, browser: httpx.AsyncClient | None = None) -> httpx.AsyncClient:
        """A browser in which somebody went through the sign-in, however that ended."""
        browser = browser or await self.world.browser()
        answer = await self.last(slug, login, browser)
        assert answer.status_code in (303, 403), answer.text
        return browser

    async def last(self, slug: str, login: str, browser: httpx.AsyncClient) -> httpx.Response:
        """The answer with which a sign-in ends: at the platform where it is refused there, else at the tenant."""
        back = await consent(browser, await self.world.begin(browser, slug), login)
        answer = await browser.get(back)
        return answer if answer.status_code != 303 else await browser.get(answer.headers["location"])

    async def carried_out(self) -> int:
        """What a worker does; how many marks it carried out."""
        return await self.world.platform.leavers()

    async def nothing_left(self) -> None:
        """All that is due is carried out."""
        while await self.carried_out():
            continue

    async def waiting(self) -> int:
        """At how many places something is not carried out yet."""
        return (await self.world.platform.scim.show(self.organization)).waiting

    async def user(self, slug: str, login: str) -> User:
        """A user of a tenant."""
        with tenant_context(self.world.runtime.resolver.table.slugs[slug][0]):
            found = await self.world.runtime.accounts.by_login(login)
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def told(root: Path, known: Names) -> AsyncIterator[tuple[Told, Told]]:
    """Two organizations: Acme with two tenants, and Umbrella with one."""
    async with world(root, known) as made:
        await made.create("acme", "acme-two", "umbrella")
        found = []
        for name, slugs in (("acme", ("acme", "acme-two")), ("umbrella", ("umbrella",))):
            organization = await made.organization(name.title(), *slugs, domain=f"{name}.example")
            provider = Provider(root, made.own(f"/sso/{organization}"))
            provider.start()
            made.stack.callback(provider.stop)
            roles = {"it-department": "admin", "0e1f": "superuser"}
            await made.sign_on(organization, provider.issuer, claim="groups", roles=roles)
            token = await made.platform.scim.token(organization, "provider")
            client = httpx.AsyncClient(
                transport=Here(),
                timeout=60,
                base_url=token.address,
                headers={"Authorization": f"Bearer {token.token}", "Content-Type": "application/scim+json"},
            )
            found.append(Told(made, organization, provider, await made.stack.enter_async_context(client)))
        yield found[0], found[1]

"""Tenants and hostnames: every change is checked here, entered as an operation, and carried out by a worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tenantry.errors import (
    ConfigError,
    MoveRefused,
    NoLogin,
    TenantNotFound,
    TenantryError,
)
from tenantry.identity import Reach, sees_only, verb
from tenantry.model import (
    Environment,
    Exported,
    ExportForm,
    Finding,
    Status,
    Usage,
    check_move,
    check_name,
    check_slug,
    new_id,
)
from tenantry.operations import adopt, change, create, destroy, drop, placement, rotate, rotate_shared, trials
from tenantry.operations.toolbox import ADMIN, VALUE, Toolbox
from tenantry.platform import csvfile, exports
from tenantry.platform.announce import Announcing
from tenantry.platform.details import (
    Credentials,
    DatabaseLogin,
    Measurement,
    PlannedStep,
    Source,
    TenantDetails,
    TurnedKeys,
)
from tenantry.refusals import InvalidRequest, SignUpGone
from tenantry.registry import Transaction, journal, people, servers, signups, tenants
from tenantry.registry.database import now
from tenantry.registry.tenants import TenantRow
from tenantry.resources import Resource
from tenantry.runtime.tokens import LEEWAY, turned

REASON_LENGTH: Final = 500


class Tenants(Announcing):
    """Every verb on tenants."""

    def __init__(self, tools: Toolbox) -> None:
        self.tools = self._tools = tools
        self._registry = tools.registry
        self._config = tools.config

    # --- reading ------------------------------------------------------------------------------------------------

    @verb("tenant.list", "tenants:read", Reach.LIST)
    async def list(
        self,
        search: str | None = None,
        status: str | None = None,
        blueprint: str | None = None,
        limit: int = 100,
        after: str | None = None,
        plan: str | None = None,
        sort: str = "slug",
        before: str | None = None,
    ) -> Sequence[TenantRow]:
        """Tenants in the order of their slugs; `after` is the last slug of the page before.

        `sort` is slug, name, created or status, with "-" before it for the other direction. `after` and `before` are
        then cursors: the name, moment or status, a space, and the slug. Raises `InvalidRequest`.
        """
        wanted = {"search": search, "status": status, "blueprint": blueprint, "plan": plan}
        async with self._registry.read() as tx:
            return await tenants.page(
                tx, **wanted, sort=sort, after=after, before=before, limit=limit, admin=sees_only()
            )

    @verb("tenant.slug", "tenants:read", Reach.LIST)
    async def check_slug(self, slug: str) -> str:
        """The slug itself, where a tenant could have it. Raises `InvalidSlug`, `ReservedSlug` or `SlugTaken`."""
        check_slug(slug, self._config.platform.reserved)
        async with self._registry.read() as tx:
            await create.refuse_taken(tx, slug)
        return slug

    @verb("tenant.show", "tenants:read", Reach.TENANT)
    async def show(self, slug: str) -> TenantDetails:
        """One tenant. Raises `TenantNotFound`."""
        async with self._registry.read() as tx:
            row = await tenants.find(tx, slug)
            environments = await self._tools.all_environments(tx, [row.id])
            trial = await signups.trial(tx, row.id)
            return TenantDetails(
                row=row,
                tenant=environments[0].tenant,
                environments=environments,
                hostnames=await tenants.hostnames(tx, slug),
                operations=await journal.latest(tx, tenant_id=row.id, limit=10),
                credentials_wait=ADMIN in await tenants.secrets(tx, row.id),
                users={f"{e.name}/{name}": login.user for e in environments for name, login in e.logins.items()},
                organization=await people.organization_of(tx, row.id),
                held=await self._held(tx, environments[0].tenant),
                trial=trial.until if trial else None,
            )

    @verb("tenant.check", "tenants:read", Reach.TENANT)
    async def check(self, slug: str) -> Sequence[Finding]:
        """Test every part of a tenant: there, reachable, and as declared. Raises `TenantNotFound`."""
        row, environments = await self._parts(slug)
        found: list[Finding] = []
        for environment in environments:
            declared = self._tools.resources[row.blueprint]
            for resource in declared:
                found += await resource.check(environment)
            names = {resource.name for resource in declared}
            found += [
                Finding(place.name, False, "it is no longer in the blueprint", "Remove it, or put it back.")
                for place in environment.places
                if place.name not in names
            ]
        return found

    async def export(
        self, slug: str, into: Path, form: ExportForm = "csv", environment: str | None = None
    ) -> Sequence[Exported]:
        """Write a tenant's rows to files in a new directory: a file for each table, as of one moment in each database.

        All environments, or the one named. Raises `TenantNotFound`, `ExportThere` or `NothingToExport`.
        """
        row, environments = await self._parts(slug)
        chosen = [one for one in environments if environment in (None, one.name)]
        parts = [(one, resource) for one in chosen for resource in self._tools.resources[row.blueprint]]
        found = await exports.export(parts, slug, into, form)
        async with self._registry.write() as tx:
            tx.audit("tenant.export", slug, id=row.id, tables=len(found), rows=sum(one.rows for one in found))
        return found

    async def closed(self, token: str) -> TenantRow:
        """The tenant, closed as its trial is over, whose data its owner may take by this. Raises `SignUpGone`.

        No verb: its owner shows what a mail brought her.
        """
        tenant_id = trials.exportable(self._registry.vault, token, now())
        async with self._registry.read() as tx:
            trial = await signups.trial(tx, tenant_id) if tenant_id else None
            row = await tenants.by_id(tx, tenant_id) if tenant_id and trial and trial.ended else None
        if row is None or row.status != Status.SUSPENDED:
            raise SignUpGone("This link opens nothing.", remedy="It held until the tenant was opened or removed.")
        return row

    @verb("tenant.measure", "tenants:read", Reach.TENANT)
    async def measure(self, slug: str) -> Measurement:
        """What a tenant takes up now; a part that is gone or out of reach is named, and not in the sum."""
        row, environments = await self._parts(slug)
        total, unmeasured = Usage(), []
        for environment in environments:
            for resource in self._tools.resources[row.blueprint]:
                try:
                    total += await resource.measure(environment)
                except TenantryError as error:
                    unmeasured.append(Finding(resource.name, False, error.message, error.hint))
        return Measurement(total.bytes, total.rows, total.files, unmeasured)

    @verb("tenant.login", "tenants:secrets", Reach.TENANT)
    async def login(self, slug: str, resource: str, environment: str | None = None) -> DatabaseLogin:
        """The login by which a tenant reaches its part of a server; the audit log tells who asked.

        Raises `TenantNotFound`, or `NoLogin` where the part lies on no server.
        """
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            found = await self._tools.all_environments(tx, [row.id])
            chosen = next((one for one in found if environment in (None, one.name) and resource in one.logins), None)
            if chosen is None:
                raise NoLogin(slug=slug, where=f" for '{resource}'")
            place, login = chosen.place(resource), chosen.logins[resource]
            assert place is not None
            tx.audit("tenant.database_login", slug, id=row.id, resource=resource, environment=chosen.name)
        spot = (str(place.server), place.database, login.user, login.password, place.prefix)
        return DatabaseLogin(chosen.name, resource, *spot)

    async def _parts(self, slug: str) -> tuple[TenantRow, Sequence[Environment]]:
        async with self._registry.read() as tx:
            row = await tenants.find(tx, slug)
            return row, await self._tools.environments(tx, row.id)

    @verb("tenant.leftovers", "tenants:read", Reach.PLATFORM)
    async def leftovers(self, slug: str) -> Sequence[str]:
        """What is left of a tenant that was destroyed: rows, files, databases on servers; nothing, when all is well.

        Raises `TenantNotFound` when no tenant of this slug was ever destroyed, `ServerUnavailable` when a server that
        is to be asked is silent.
        """
        async with self._registry.read() as tx:
            done = await journal.latest(tx, tenant=slug, verb="destroy", limit=1)
            if not done or done[0].tenant_id is None:
                raise TenantNotFound(slug=slug)
            arguments = done[0].arguments
            left = await destroy.leftovers(tx, self._tools, done[0].tenant_id, list(arguments["homes"]))
            aside = await destroy.aside(tx, done[0].tenant_id)
            await self._tools.learn_servers(tx)
        if aside:
            return [*left, *aside]
        return [*left, *await destroy.still_there(self._tools, arguments.get("remnants", ()))]

    @verb("tenant.credentials", "tenants:secrets", Reach.TENANT)
    async def credentials(self, slug: str) -> Credentials | None:
        """The first admin's credentials; None when they were shown before. They are forgotten as they are shown."""
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            sealed = (await tenants.secrets(tx, row.id)).get(ADMIN)
            if sealed is None:
                return None
            environment = (await tenants.environments(tx, [row.id]))[0]
            opened = json.loads(self._registry.vault.open(row.id, environment.sealed_key, ADMIN, sealed))
            await tenants.drop_secret(tx, row.id, ADMIN)
            tx.audit("tenant.credentials", slug, id=row.id, login=opened["login"])
        return Credentials(**opened)

    # --- creating -----------------------------------------------------------------------------------------------

    @verb("tenant.plan_create", "tenants:read", Reach.PLATFORM)
    async def plan_create(
        self,
        slug: str,
        name: str | None = None,
        blueprint: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
        server: str | None = None,
    ) -> Sequence[PlannedStep]:
        """What `create` is going to do, after every check, and where each part goes as things are now."""
        environments, _ = self._draft(slug, name, blueprint, plan, settings)
        environments = await self._try_out(environments, placement.Choice(server=server))
        return self._planned(slug, create.steps(self._tools, environments), environments)

    async def _try_out(self, environments: Sequence[Environment], choice: placement.Choice) -> Sequence[Environment]:
        """The environments of a tenant that could be made now, each part with its place. Nothing is written."""
        tenant = environments[0].tenant
        async with self._registry.read() as tx:
            await create.refuse_full(tx, self._tools, 1)
            await create.refuse_taken(tx, tenant.slug)
            keys = {tenant.id: self._registry.vault.new_data_key(tenant.id)}
            placed, errors = await placement.place_each(tx, self._tools, environments, keys, choice, keep=False)
        for error in errors.values():
            raise error
        return placed

    def _planned(
        self, slug: str, steps: Sequence[tuple[str, str]], environments: Sequence[Environment]
    ) -> Sequence[PlannedStep]:
        places = {
            (f"{place.name}@{environment.name}" if len(environments) > 1 else place.name): self._tools.spot(
                environment, place
            )
            for environment in environments
            for place in environment.places
        }
        hosts = " ".join(host for environment in environments for host in environment.hostnames)
        weak = self._caveats(environments[0].tenant.blueprint)
        planned = [
            PlannedStep(name, kind, places.get(name, ""), weak.get(name.partition("@")[0], ""))
            for name, kind in steps[:-1]
        ]
        return [PlannedStep("reserve", "", slug), *planned, PlannedStep("live", "", hosts)]

    def _caveats(self, blueprint: str) -> dict[str, str]:
        return {part.name: part.caveat for part in self._tools.resources[blueprint] if part.caveat}

    @verb("tenant.caveats", "tenants:read", Reach.TENANT)
    async def caveats(self, slug: str) -> Mapping[str, str]:
        """What the isolation of a tenant's parts does not promise, by resource; nothing of those that promise all."""
        async with self._registry.read() as tx:
            row = await tenants.find(tx, slug)
        return self._caveats(row.blueprint)

    @verb("tenant.create", "tenants:write", Reach.PLATFORM)
    async def create(
        self,
        slug: str,
        name: str | None = None,
        blueprint: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
        server: str | None = None,
    ) -> journal.Operation:
        """Reserve a tenant and queue what makes it; on this server, where one is named.

        Raises `InvalidSlug`, `ReservedSlug`, `SlugTaken`, `HostTaken`, `LimitReached`, `NoServer`, `ServerUnknown` or
        `ConfigError`.
        """
        environments, secret = self._draft(slug, name, blueprint, plan, settings)
        async with self._registry.write() as tx:
            operation_id = await create.enter(tx, self._tools, environments, secret, server)
            return await journal.get(tx, operation_id)

    def drafted(self, slug: str, name: str, blueprint: str | None, plan: str | None) -> Sequence[Environment]:
        """The environments of a tenant that is not there yet, after every check of its words."""
        return self._draft(slug, name, blueprint, plan, None)[0]

    def _draft(
        self,
        slug: str,
        name: str | None,
        blueprint: str | None,
        plan: str | None,
        settings: Mapping[str, Any] | None,
    ) -> tuple[Sequence[Environment], dict[str, Any]]:
        check_slug(slug, self._config.platform.reserved)
        blueprint = self._blueprint(blueprint)
        open_values, secret = self._split_settings(blueprint, settings or {})
        environments = self._tools.draft(
            slug, check_name(slug if name is None else name), blueprint, self._plan(plan), open_values
        )
        return environments, secret

    def _blueprint(self, name: str | None) -> str:
        if name is None:
            if len(self._config.blueprints) == 1:
                return next(iter(self._config.blueprints))
            raise ConfigError(
                "The platform has several blueprints.", remedy=f"Name one: {', '.join(self._config.blueprints)}."
            )
        self._tools.blueprint(name)
        return name

    def _plan(self, name: str | None) -> str | None:
        plans = self._config.plans
        if name is None:
            return next(iter(plans), None)
        if name not in plans:
            raise ConfigError(f"There is no plan '{name}'.", remedy=f"Known plans: {', '.join(plans) or 'none'}.")
        return name

    def _split_settings(self, blueprint: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings that may be seen, and secret ones. Raises `ConfigError` for one that is not declared."""
        declared = self._tools.blueprint(blueprint).values
        visible: dict[str, Any] = {}
        secret: dict[str, Any] = {}
        for key, value in settings.items():
            if key not in declared:
                known = ", ".join(declared) or "none"
                raise ConfigError(
                    f"The blueprint '{blueprint}' has no value '{key}'.", remedy=f"Known values: {known}."
                )
            (secret if declared[key].secret else visible)[key] = _typed(key, value, declared[key].default)
        return visible, secret

    def _seal(self, tenant_id: str, sealed_key: bytes, name: str, value: Any) -> bytes:
        return self._registry.vault.seal(tenant_id, sealed_key, VALUE + name, json.dumps(value))

    async def import_csv(
        self, path: Path | str, blueprint: str | None = None, plan: str | None = None
    ) -> journal.Operation:
        """`import_text` of a file here. Raises `ConfigError` also where it cannot be read."""
        return await self.import_text(csvfile.text_of(Path(path)), str(path), blueprint, plan)

    @verb("tenant.import", "tenants:write", Reach.PLATFORM)
    async def import_text(
        self, text: str, file: str = "the list", blueprint: str | None = None, plan: str | None = None
    ) -> journal.Operation:
        """Create every tenant of a CSV text with the columns slug, name, plan, blueprint and any of the values.

        A row that cannot be is kept as a failed item with its line, and the others go on. Raises `ConfigError` when the
        text as a whole cannot be read, and `LimitReached` when it has more rows than the platform has room. `file` is
        what errors and the audit log call it.
        """
        rows = csvfile.rows_of(text, file)
        good: list[csvfile.Row] = []
        items: list[journal.NewItem] = []
        async with self._registry.write() as tx:
            used = await tenants.taken(tx, [row.slug for row in rows])
            for row in rows:
                item = csvfile.item(row, used, lambda row: self._describe(row, blueprint, plan))
                items.append(item)
                if item.error is None:
                    good.append(row)
                    used[row.slug] = f"on line {row.line} as well"
            await create.refuse_full(tx, self._tools, len(good))
            operation_id = new_id()
            arguments = {"file": file, "rows": len(rows)}
            await journal.submit(tx, operation_id, "import", [("tenants", "")], arguments=arguments, items=items)
            tx.audit("tenant.import", Path(file).name, rows=len(rows), operation=operation_id)
            return await journal.get(tx, operation_id)

    def _describe(self, row: csvfile.Row, blueprint: str | None, plan: str | None) -> dict[str, Any]:
        environments, secret = self._draft(
            row.slug, row.name, row.blueprint or blueprint, row.plan or plan, row.settings
        )
        if secret:
            raise ConfigError(
                f"'{next(iter(secret))}' is secret.", remedy="Set secret values with `tenantry tenant edit`."
            )
        return create.describe(environments[0])

    # --- adopting -----------------------------------------------------------------------------------------------

    @verb("tenant.plan_adopt", "tenants:read", Reach.PLATFORM)
    async def plan_adopt(
        self, slug: str, source: Source, **fields: Any
    ) -> tuple[Sequence[PlannedStep], Sequence[Finding]]:
        """What `adopt` is going to do, and how what is there differs from the golden schema at that version.

        Raises as `adopt` does; `fields` are its own.
        """
        environments, adopted, _ = self._adopting(slug, source, **fields)
        environments = await self._try_out(environments, adopt.choice(adopted))
        chosen = next(one for one in environments if one.name == adopted["environment"])
        resource = self._tools.resource(chosen.tenant.blueprint, source.resource)
        findings = await resource.survey(chosen, adopted["version"], source.file)
        planned = self._planned(slug, adopt.steps(self._tools, environments, adopted), environments)
        ours = adopt.step_of(environments, adopted)
        note = f"{source.file}, copied as it is" if source.file else f"{source.database} on {source.server}, as it is"
        told = f"{note}, at {source.version}"
        return [replace(one, detail=told) if one.name == ours else one for one in planned], findings

    @verb("tenant.adopt", "tenants:write", Reach.PLATFORM)
    async def adopt(self, slug: str, source: Source, **fields: Any) -> journal.Operation:
        """Make a tenant around a database that is there already; `fields` are those of `create`, but the server.

        Raises as `create` does, `MigrationInvalid` where the database's records say another version, `NameTaken` where
        it is another tenant's, and `ResourceError` where it is not there or cannot be adopted.
        """
        environments, adopted, secret = self._adopting(slug, source, **fields)
        tenant, choice = environments[0].tenant, adopt.choice(adopted)
        tried = await self._try_out(environments, choice)
        chosen = next(one for one in tried if one.name == adopted["environment"])
        await self._tools.resource(tenant.blueprint, source.resource).survey(chosen, adopted["version"], source.file)
        key = self._registry.vault.new_data_key(tenant.id)
        sealed = {name: self._seal(tenant.id, key, name, value) for name, value in secret.items()}
        arguments = {**create.describe(environments[0]), "secrets": sorted(secret), "adopted": adopted}
        async with self._registry.write() as tx:
            await create.refuse_full(tx, self._tools, 1)
            await create.refuse_taken(tx, slug)
            await create.reserve(tx, self._tools, environments, {tenant.id: sealed}, {tenant.id: key}, choice)
            operation_id, steps = new_id(), adopt.steps(self._tools, environments, adopted)
            await journal.submit(tx, operation_id, "adopt", steps, tenant=(tenant.id, slug), arguments=arguments)
            tx.audit(
                "tenant.reserve", slug, id=tenant.id, blueprint=tenant.blueprint, plan=tenant.plan, adopted=adopted
            )
            return await journal.get(tx, operation_id)

    def _adopting(
        self,
        slug: str,
        source: Source,
        name: str | None = None,
        blueprint: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> tuple[Sequence[Environment], dict[str, Any], dict[str, Any]]:
        """The drafted environments, what an operation keeps of the source, and the secret settings."""
        environments, secret = self._draft(slug, name, blueprint, plan, settings)
        made_of = environments[0].tenant.blueprint
        resource = self._tools.resource(made_of, source.resource)
        chosen = next((e.name for e in environments if source.environment in (None, e.name)), None)
        if chosen is None:
            known = ", ".join(e.name for e in environments)
            raise ConfigError(f"'{made_of}' has no environment '{source.environment}'.", remedy=f"It has: {known}.")
        version = _checked_source(resource, source)
        adopted = {
            "resource": source.resource,
            "environment": chosen,
            "version": version,
            "server": source.server,
            "database": source.database,
            "file": str(source.file.resolve()) if source.file else None,
            "move": source.move,
        }
        return environments, adopted, secret

    # --- changing -----------------------------------------------------------------------------------------------

    @verb("tenant.rotate", "tenants:write", Reach.PLATFORM)
    async def rotate(self, slugs: Sequence[str] = ()) -> journal.Operation:
        """Give tenants new database logins, without a failed request; where none is named all, and the shared ones.

        Raises `TenantNotFound`, `NoLogin` or, for a single tenant, `OperationInProgress`.
        """
        async with self._registry.write() as tx:
            having = await servers.with_logins(tx)
            able = {slug for _, slug in having}
            for slug in slugs:
                await tenants.find(tx, slug)
                if slug not in able:
                    raise NoLogin(slug=slug, where="")
            chosen = [(tenant_id, slug) for tenant_id, slug in having if not slugs or slug in slugs]
            items = [journal.NewItem(0, slug, {"id": tenant_id}) for tenant_id, slug in chosen]
            if not slugs:
                items += [rotate_shared.item(*where) for where in await rotate_shared.databases(tx, self._tools)]
            operation_id, one = new_id(), chosen[0] if len(chosen) == len(items) == 1 else None
            await journal.submit(tx, operation_id, "rotate", [(rotate.STEP, "")], tenant=one, items=items)
            facts = {"operation": operation_id, "tenants": len(items), **({"id": one[0]} if one else {})}
            tx.audit("platform.rotate", one[1] if one else "platform", **facts)
            return await journal.get(tx, operation_id)

    @verb("tenant.rotate_keys", "tenants:write", Reach.TENANT)
    async def rotate_keys(self, slug: str, at_once: bool = False) -> TurnedKeys:
        """Give a tenant other keys for its tokens, out of turn. They are published now, and sign in an hour.

        By then whoever keeps the public keys has asked anew; the ones before are believed until their last token is
        over. With `at_once` the new ones sign now and no token of the ones before opens anything, in any process,
        within a second: for keys that somebody else may know. Refresh tokens and sessions hold.
        """
        moment, seconds = int(now().timestamp()), int(self._config.runtime.token)
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            tenant = (await tenants.environments(tx, [row.id]))[0].tenant
            turns = turned(tenant.key_turns, moment, seconds, at_once)
            await tenants.alter(tx, [row.id], key_turns=[[turn.number, turn.since] for turn in turns])
            since = datetime.fromtimestamp(turns[-1].since, UTC)
            until = None if at_once else since + timedelta(seconds=seconds + LEEWAY)
            tx.audit("tenant.rotate_keys", row.slug, id=row.id, turn=turns[-1].number, since=since, at_once=at_once)
        return TurnedKeys(since, until)

    @verb("tenant.edit", "tenants:write", Reach.TENANT)
    async def edit(
        self,
        slug: str,
        name: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
        unset: Sequence[str] = (),
    ) -> journal.Operation:
        """Change a tenant's name, plan and settings, and make anew what is rendered from them."""
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            environments = await tenants.environments(tx, [row.id])
            tenant, key = environments[0].tenant, environments[0].sealed_key
            visible, secret = self._split_settings(row.blueprint, settings or {})
            self._split_settings(row.blueprint, dict.fromkeys(unset, None))
            kept = {k: v for k, v in tenant.settings.items() if k not in unset}
            after: dict[str, Any] = {"settings": kept | visible}
            if name is not None:
                after["name"] = check_name(name)
            if plan is not None:
                after["plan"] = self._plan(plan)
            before = {field: getattr(tenant, field) for field in after} | {"settings": dict(tenant.settings)}
            arguments = {"after": after, "before": before}
            sealed = {VALUE + k: self._seal(row.id, key, k, v) for k, v in secret.items()}
            touched = [*sealed, *(VALUE + name for name in unset)]
            if touched:
                # Sealed under the tenant's own key, so that the operation's record gives nothing away.
                there = await tenants.secrets(tx, row.id)
                arguments["secrets_after"] = {field: change.pack(sealed.get(field)) for field in touched}
                arguments["secrets_before"] = {field: change.pack(there.get(field)) for field in touched}
            return await self._submit(tx, "edit", row, environments, arguments)

    @verb("tenant.rename", "tenants:write", Reach.TENANT)
    async def rename(self, slug: str, to: str) -> journal.Operation:
        """Give a tenant another slug: its hostnames follow, and the old ones redirect for a while."""
        check_slug(to, self._config.platform.reserved)
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            environments = await tenants.environments(tx, [row.id])
            if to not in environments[0].tenant.former:
                await create.refuse_taken(tx, to)
            before = {"slug": slug, "hostnames": {e.id: list(e.hostnames) for e in environments}}
            return await self._submit(tx, "rename", row, environments, {"to": to, "before": before})

    @verb("tenant.activate", "tenants:write", Reach.TENANT)
    async def activate(self, slug: str, plan: str | None = None) -> journal.Operation:
        """End a tenant's trial well, also one that is over already; and give it a plan."""
        return await self._stand(slug, "activate", Status.ACTIVE, "", self._plan(plan) if plan else None)

    @verb("tenant.suspend", "tenants:write", Reach.TENANT)
    async def suspend(self, slug: str, reason: str = "") -> journal.Operation:
        """Refuse a tenant's requests from now on; its data stay as they are.

        The reason has 500 characters at most. Raises `InvalidRequest` for a longer one.
        """
        return await self._stand(slug, "suspend", Status.SUSPENDED, reason)

    @verb("tenant.resume", "tenants:write", Reach.TENANT)
    async def resume(self, slug: str) -> journal.Operation:
        """Serve a suspended tenant again; a trial that was not over goes on."""
        return await self._stand(slug, "resume", Status.ACTIVE, "")

    async def _stand(
        self, slug: str, verb: str, target: Status, reason: str, plan: str | None = None
    ) -> journal.Operation:
        if len(reason) > REASON_LENGTH:
            raise InvalidRequest(where="reason", reason=f"{len(reason)} characters are more than {REASON_LENGTH}")
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            await journal.refuse_busy(tx, row.id, slug)
            if verb == "resume" and row.status == Status.SUSPENDED:
                trial = await signups.trial(tx, row.id)
                target = Status.TRIALING if trial is not None and trial.ended is None else target
            check_move(slug, Status(row.status), target)
            arguments = {"status": target.value, "before": row.status, "reason": reason}
            environments = await tenants.environments(tx, [row.id]) if plan else []
            return await self._submit(tx, verb, row, environments, arguments | ({"plan": plan} if plan else {}))

    @verb("tenant.plan_destroy", "tenants:read", Reach.TENANT)
    async def plan_destroy(self, slug: str) -> Sequence[PlannedStep]:
        """What `destroy` is going to remove."""
        async with self._registry.read() as tx:
            row = await tenants.find(tx, slug)
            environments = await tenants.environments(tx, [row.id])
        home = str(self._tools.home(environments[0]).parent)
        details = {destroy.WITHDRAW: " ".join(environments[0].hostnames), destroy.DIRECTORY: home}
        return [PlannedStep(n, k, details.get(n, "")) for n, k in destroy.steps(self._tools, environments)]

    @verb("tenant.destroy", "tenants:write", Reach.TENANT)
    async def destroy(self, slug: str) -> journal.Operation:
        """Remove a tenant and everything of it. There is no way back."""
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            environments = await self._tools.all_environments(tx, [row.id])
            arguments = {
                "homes": [environment.home for environment in environments],
                "remnants": drop.remnants_of(self._tools, environments),
            }
            return await self._submit(tx, "destroy", row, environments, arguments)

    async def _submit(
        self,
        tx: Transaction,
        verb: str,
        row: TenantRow,
        environments: Sequence[Environment],
        arguments: Mapping[str, Any],
    ) -> journal.Operation:
        if verb != "destroy" and row.status == Status.DESTROYING:
            raise MoveRefused(slug=row.slug, status=row.status, target="changed")
        if verb == "destroy":
            steps = destroy.steps(self._tools, environments)
        else:
            steps = change.steps(self._tools, environments)
        operation_id = new_id()
        await journal.submit(tx, operation_id, verb, steps, tenant=(row.id, row.slug), arguments=arguments)
        return await journal.get(tx, operation_id)


def _checked_source(resource: Resource, source: Source) -> str | None:
    """The version of what is to be adopted. Raises `ConfigError`, or `MigrationInvalid` for an unknown one."""
    there = source.server and source.database and not source.file
    if not there if resource.server_kind else not source.file or source.server or source.database:
        wanted = "--server and --database" if resource.server_kind else "--file"
        raise ConfigError(
            f"'{resource.name}' is a {resource.kind} resource.", remedy=f"Name what is there by {wanted}."
        )
    if resource.has_schema and source.version is None:
        known = ", ".join([*resource.versions(), "none"])
        raise ConfigError(f"The version of '{resource.name}' is missing.", remedy=f"Name it with --at: {known}.")
    if source.version in (None, "none"):
        return None
    resource.pending(source.version)
    return source.version


def _typed(key: str, text: Any, default: str | float | bool) -> Any:
    """A setting as the type of its default; texts come from the command line and from CSV files."""
    if not isinstance(text, str) or isinstance(default, str):
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise ConfigError(f"The value '{key}' cannot be '{text}'.", remedy=f"Give {kind}.") from None

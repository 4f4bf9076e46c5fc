"""What settings must keep together, beyond the type of each alone."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from tenantry.config.lines import Path as Key
from tenantry.config.models import Blueprint, Config, Option, Value
from tenantry.errors import InvalidHost, InvalidSlug, ReservedSlug
from tenantry.model import FACTS, check_slug, expand, fields_of, normalise_host

IDENTIFYING: Final = frozenset({"slug", "client_id", "id"})
"""Facts that no two tenants share."""

HOST_FACTS: Final = IDENTIFYING | {"environment", "domain"}
"""Facts that may stand in a host name; a tenant's name and plan may hold any character."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
_SAMPLE: Final = {"slug": "a", "client_id": "a", "id": "a", "environment": "production", "domain": "example.com"}


class Trouble(NamedTuple):
    """A fault by its key; its place and value are looked up later."""

    key: Key
    reason: str
    remedy: str


def meant(word: str, known: Collection[str], otherwise: str) -> str:
    """The remedy for a word that is not known: the one that was meant, or all there are."""
    close = get_close_matches(word, list(known), n=1)
    return f"Did you mean '{close[0]}'?" if close else f"{otherwise}: {', '.join(sorted(known)) or 'none'}."


def cross_checks(config: Config, declared: Any = None) -> Iterator[Trouble]:
    """All that is wrong between settings. `declared` holds the blueprints as written, with those left out here."""
    yield from _platform(config)
    yield from _routing(config)
    yield from _processes(config)
    yield from _servers(config)
    yield from _sign_up(config)
    for name, blueprint in config.blueprints.items():
        key: Key = ("blueprints", name)
        yield from _names(key, name, blueprint)
        yield from _patterns(key, blueprint)
        yield from _extends(key, config, blueprint, declared if isinstance(declared, dict) else config.blueprints)
        try:
            whole = config.whole(name)
        except KeyError:
            continue  # told by _extends, here or at the blueprint in between
        yield from _hostnames(key, whole)
        yield from _places(key, whole)


def _platform(config: Config) -> Iterator[Trouble]:
    for index, slug in enumerate(config.platform.reserved):
        try:
            check_slug(slug)
        except ReservedSlug:
            pass  # reserved twice does no harm
        except InvalidSlug as error:
            yield Trouble(("platform", "reserved", index), f"it is no slug: {error.details['reason']}", error.hint)
    key: Key = ("platform", "tenant")
    if config.platform.mode == "single-tenant" and not config.platform.tenant:
        yield Trouble(key, "a single-tenant platform needs it", 'Add tenant = "slug" below [platform].')
    elif config.platform.tenant is not None:
        try:
            check_slug(config.platform.tenant, config.platform.reserved)
        except (InvalidSlug, ReservedSlug) as error:
            yield Trouble(key, f"it cannot be a slug: {error.message}", error.hint)


def _routing(config: Config) -> Iterator[Trouble]:
    routing = config.routing
    key: Key = ("routing", "path")
    if not routing.path.startswith("/") or not routing.path.endswith("/"):
        yield Trouble(key, "it must begin and end with a slash", 'Write it like "/t/{slug}/".')
    elif fields_of(routing.path) != {"slug"}:
        yield Trouble(key, "it must name {slug} and nothing else in braces", 'Write it like "/t/{slug}/".')
    if not routing.health.startswith("/"):
        yield Trouble(("routing", "health"), "it must begin with a slash", 'Write it like "/.tenantry/health".')
    if len(set(routing.by)) < len(routing.by):
        yield Trouble(("routing", "by"), "it names a way twice", "Name each way once, in the order they are tried.")


def _processes(config: Config) -> Iterator[Trouble]:
    if config.worker.dead_after <= 2 * config.worker.heartbeat:
        remedy = "Set it to at least three times worker.heartbeat."
        yield Trouble(("worker", "dead_after"), "a worker that lives could be taken for dead", remedy)
    for name in ("app", "platform_app"):
        app = getattr(config.serve, name)
        if app is not None and not re.fullmatch(r"[\w.]+:[\w.]+", app):
            yield Trouble(("serve", name), "it names no application", 'Write it like "package.module:application".')
    for index, proxy in enumerate(config.serve.trusted_proxies):
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            remedy = 'Write an address or a network: "10.0.0.7" or "10.0.0.0/8".'
            yield Trouble(("serve", "trusted_proxies", index), "it is no address and no network", remedy)


def _sign_up(config: Config) -> Iterator[Trouble]:
    """What sign-up names has to be there, and the wizard fills what the blueprint declares."""
    settings = config.signup
    if settings.open and settings.verify_mail and config.mail.host is None:
        remedy = "Name a server below [mail], or set verify_mail = false."
        yield Trouble(("signup", "open"), "a mail has to prove each address, and none can be sent", remedy)
    if settings.plan is not None and settings.plan not in config.plans:
        yield Trouble(("signup", "plan"), "there is no such plan", meant(settings.plan, config.plans, "There is"))
    name = settings.blueprint or next(iter(config.blueprints), "")
    if name not in config.blueprints:
        yield Trouble(("signup", "blueprint"), "there is no such blueprint", meant(name, config.blueprints, "There is"))
        return
    if f"{settings.also_at or ''}/".startswith(("/api/", "/admin/", "/hooks/", "/signup/")):
        yield Trouble(("signup", "also_at"), "the platform has other pages there", "Choose another path.")
    try:
        declared = config.whole(name).values
    except KeyError:
        return
    for at, step in enumerate(settings.wizard or ()):
        for number, one in enumerate(step.fields):
            key: Key = ("signup", "wizard", at, "fields", number)
            yield from _option(key, one, declared)


def _option(key: Key, one: Option, declared: Mapping[str, Value]) -> Iterator[Trouble]:
    if one.value not in declared:
        remedy = meant(one.value, declared, "The blueprint has")
        yield Trouble((*key, "value"), f"the blueprint declares no value '{one.value}'", remedy)
        return
    kinds = {bool: ("yes/no",), int: ("number",), float: ("number",)}.get(
        type(declared[one.value].default), ("text", "choice", "color")
    )
    if one.kind not in kinds:
        yield Trouble((*key, "kind"), f"the value '{one.value}' is no {one.kind}", f"It can be: {', '.join(kinds)}.")
    if declared[one.value].secret:
        yield Trouble((*key, "value"), f"the value '{one.value}' is secret", "Ask for it in the application.")
    if (one.kind == "choice") is not bool(one.options):
        yield Trouble((*key, "options"), "a choice has options, and nothing else has", 'Write options = ["a", "b"].')


def _servers(config: Config) -> Iterator[Trouble]:
    """Each server has one address: its URL, or it is the one embedded PostgreSQL of the platform."""
    first: str | None = None
    for name, server in config.servers.items():
        key: Key = ("servers", name)
        if server.url is None and not server.embedded:
            remedy = 'Add url = {env = "NAME"}, or, for the PostgreSQL that Tenantry brings itself, embedded = true.'
            yield Trouble(key, "it has no url", remedy)
        if not server.embedded:
            continue
        key = (*key, "embedded")
        if server.url is not None:
            yield Trouble(key, "it has a url as well", "Keep one of the two.")
        if server.kind != "postgres":
            yield Trouble(key, f"a server of kind {server.kind} cannot be embedded", "Give it a url.")
        if first is not None:
            yield Trouble(key, f"{first!r} is the embedded PostgreSQL already", "Keep one of the two.")
        first = first or name


# --- blueprints ---------------------------------------------------------------------------------------------------


def _extends(key: Key, config: Config, blueprint: Blueprint, names: Collection[str]) -> Iterator[Trouble]:
    seen, base = [str(key[-1])], blueprint.extends
    if base is not None and base not in names:
        others = set(names) - set(seen)
        yield Trouble((*key, "extends"), "there is no such blueprint", meant(base, others, "There is"))
    while base in config.blueprints and base not in seen:
        seen.append(base)
        base = config.blueprints[base].extends
    if base == seen[0]:
        circle = " extends ".join((*seen, seen[0]))
        yield Trouble((*key, "extends"), f"it leads in a circle: {circle}", "Remove one extends of the circle.")


def _names(key: Key, name: str, blueprint: Blueprint) -> Iterator[Trouble]:
    """Names become directories and parts of addresses, so they keep one form."""
    named: list[tuple[Key, str]] = [(key, name)]
    named += [((*key, "environments", index), each) for index, each in enumerate(blueprint.environments)]
    named += [((*key, "resources", each), each) for each in blueprint.resources]
    for where, each in named:
        if not _NAME.fullmatch(each):
            remedy = "Use letters a-z, digits, hyphens and underscores, beginning with a letter; 63 at most."
            yield Trouble(where, f"{each!r} cannot be a name", remedy)
    for each in blueprint.values:
        if not _VARIABLE.fullmatch(each):
            yield Trouble(
                (*key, "values", each), f"{each!r} cannot be the name of a value", "Use letters, digits and _."
            )
    if len(set(blueprint.environments)) < len(blueprint.environments):
        yield Trouble((*key, "environments"), "it names an environment twice", "Name each once.")


def _patterns(key: Key, blueprint: Blueprint) -> Iterator[Trouble]:
    texts: list[tuple[Key, str]] = [((*key, "admin"), blueprint.admin or "")]
    for name, value in blueprint.values.items():
        where: Key = (*key, "values", name)
        if not value.secret and isinstance(value.default, str):
            texts.append((where, value.default))
    for where, text in texts:
        yield from _facts(where, text, FACTS)
    for environment, hostname in blueprint.hostnames.items():
        yield from _hostname((*key, "hostnames", environment), hostname.pattern)


def _facts(key: Key, text: str, known: Collection[str]) -> Iterator[Trouble]:
    unknown = sorted(fields_of(text) - set(known))
    if unknown:
        names = ", ".join(f"{{{name}}}" for name in sorted(known))
        yield Trouble(key, f"it names {', '.join(f'{{{name}}}' for name in unknown)}", f"It may name {names}.")


def _hostnames(key: Key, whole: Blueprint) -> Iterator[Trouble]:
    for environment in whole.hostnames:
        if environment not in whole.environments:
            known = ", ".join(whole.environments)
            yield Trouble((*key, "hostnames", environment), "there is no such environment", f"Declared: {known}.")
    seen: dict[str, str] = {}
    for environment, hostname in whole.hostnames.items():
        filled = expand(
            hostname.pattern.lower(),
            {**{name: f"{{{name}}}" for name in fields_of(hostname.pattern)}, "environment": environment},
        )
        if filled in seen:
            reason = f"it is the host name of {seen[filled]!r} as well"
            yield Trouble((*key, "hostnames", environment), reason, 'Tell them apart: "{environment}-{slug}.{domain}".')
        seen.setdefault(filled, environment)


def _hostname(key: Key, pattern: str) -> Iterator[Trouble]:
    unknown = [*_facts(key, pattern, HOST_FACTS)]
    if unknown:
        yield from unknown
    elif not fields_of(pattern) & IDENTIFYING:
        remedy = 'Put {slug} or {client_id} into it: "{slug}.{domain}".'
        yield Trouble(key, "all tenants have the same host name", remedy)
    else:
        try:
            normalise_host(expand(pattern, _SAMPLE))
        except InvalidHost as error:
            yield Trouble(key, f"it makes no host name: {error.details['reason']}", error.hint)


def _places(key: Key, blueprint: Blueprint) -> Iterator[Trouble]:
    """Two resources that write one file would destroy each other's work."""
    seen: dict[str, str] = {}
    for name, spec in blueprint.resources.items():
        place = posixpath.normpath(_place(name, spec.options))
        if place in seen:
            remedy = "Give each resource a target of its own."
            yield Trouble((*key, "resources", name), f"it is written to {place!r}, as {seen[place]!r} is", remedy)
        seen.setdefault(place, name)


def _place(name: str, options: Mapping[str, Any]) -> str:
    """Where a resource lies below its environment's home, as far as options can tell without its driver."""
    for option in ("target", "path", "file"):
        if options.get(option):
            return str(options[option])
    if options.get("template"):
        return posixpath.basename(str(options["template"])).removesuffix(".j2").removesuffix(".jinja")
    return name

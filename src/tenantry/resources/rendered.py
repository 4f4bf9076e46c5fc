"""The kind `rendered`: a text file for each environment, made of a Jinja template and the tenant's values."""

from __future__ import annotations

import json
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import BaseModel, field_validator
from sqlalchemy.engine import make_url

from tenantry import paths
from tenantry.config import Frozen
from tenantry.errors import PathEscape
from tenantry.model import (
    Attempt,
    Breach,
    Environment,
    Finding,
    Usage,
    check_path,
    expand,
    facts_of,
    fields_of,
    resolve_values,
)
from tenantry.resources import Setting
from tenantry.resources.files import Filed

SIZE: Final = 4 * 1024 * 1024
"""The most bytes a rendered file may have."""

NAMES: Final = frozenset({"id", "slug", "client_id", "environment", "domain"})
"""What a target may name: facts that keep the rules of paths."""

UNIQUE: Final = frozenset({"id", "slug", "client_id"})
"""One of these must stand in an absolute target, or all tenants meet in one file."""

SECRET: Final = 0o600
PLAIN: Final = 0o640


TOLD_APART: Final = 8
"""The fewest characters of a secret that is looked for in others' files."""

SPILLED: Final = "another tenant in the text"


class Options(Frozen):
    """What `rendered` takes: `template`, `target`, `secret`."""

    template: str
    target: str | None = None
    secret: bool | None = None  # None: secret where the text came to use a secret value

    @field_validator("target")
    @classmethod
    def _apart(cls, target: str | None) -> str | None:
        if target is None:
            return None
        names = fields_of(target)
        if unknown := sorted(names - NAMES):
            raise ValueError(f"a target knows no {{{unknown[0]}}}; it knows {', '.join(sorted(NAMES))}")
        if target.startswith("/") and not names & UNIQUE:
            raise ValueError("an absolute target needs {slug}, {client_id} or {id}, so that each tenant has its own")
        try:
            check_path(expand(target.removeprefix("/"), dict.fromkeys(NAMES, "x")))
        except PathEscape as error:
            raise ValueError(error.message) from error
        return target


def _secrets(env: Environment) -> dict[str, str]:
    """What only this environment may know, by name; what is too short to be told apart is left out."""
    values = {f"the value {name}": str(value) for name, value in env.secrets.items()}
    passwords = {f"the password of {name}": login.password for name, login in env.logins.items()}
    return {name: text for name, text in (values | passwords).items() if len(text) >= TOLD_APART}


class _Values(dict[str, Any]):
    """A tenant's values, which notice when a template takes a secret one."""

    def __init__(self, values: Mapping[str, Any], secret: frozenset[str]) -> None:
        super().__init__(values)
        self._secret = secret  # underscored names are out of a template's reach
        self._told = False

    def __getitem__(self, key: str) -> Any:
        self._told |= key in self._secret
        return super().__getitem__(key)

    def _all(self) -> None:
        self._told |= bool(self._secret & self.keys())

    def told(self) -> bool:
        """Whether a secret value was taken."""
        return self._told

    def get(self, key: str, default: Any = None) -> Any:
        self._told |= key in self._secret
        return super().get(key, default)

    def items(self) -> Any:
        self._all()
        return super().items()

    def values(self) -> Any:
        self._all()
        return super().values()

    def __str__(self) -> str:
        self._all()
        return super().__str__()


def _as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON, letters as they are."""
    return json.dumps(dict(value.items()) if isinstance(value, _Values) else value, ensure_ascii=False, indent=indent)


def _make_jinja() -> SandboxedEnvironment:
    jinja = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    filters: dict[str, Callable[..., str]] = {"json": _as_json, "quote": lambda value: shlex.quote(str(value))}
    jinja.filters.update(filters)
    return jinja


_jinja: Final = _make_jinja()


@lru_cache(maxsize=256)
def _compiled(path: Path, modified: int, size: int) -> Template:
    """A template, compiled again only when its file changed."""
    code = _jinja.compile(path.read_text("utf-8"), path.name, str(path))
    return Template.from_code(_jinja, code, _jinja.make_globals(None))


class Rendered(Filed):
    """A file that says what the template says now, for programs in any language to read."""

    kind = "rendered"
    follows_tenant = True
    Options: ClassVar[type[BaseModel]] = Options

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._template = self._declared("template", options.template)

    def _location(self) -> str:
        plain = Path(self.options.template).name
        return self.options.target or plain.removesuffix(".j2").removesuffix(".jinja")

    def locate(self, env: Environment) -> str:
        """Where the file lies for this environment: it moves when the target names what changed."""
        return expand(self.location, self._facts(env))

    def spot(self, env: Environment) -> tuple[Path, str]:
        """The trusted root and the path below it; of an absolute target, the root is what stands before the names."""
        if not self.location.startswith("/"):
            return super().spot(env)
        fixed = self.location.partition("{")[0].rpartition("/")[0]
        return Path(fixed or "/"), self.locate(env)[len(fixed) + 1 :]

    def _facts(self, env: Environment) -> dict[str, Any]:
        return facts_of(env.tenant, env.name, self.setting.domain)

    # --- text ---

    def _source(self, env: Environment) -> Path:
        """The template, or the tenant's own one: overrides/<slug>/<template's name> beside tenantry.toml."""
        own = self.setting.root / "overrides" / env.tenant.slug / self._template.name
        return own if own.is_file() else self._template

    def render(self, env: Environment) -> tuple[bytes, int]:
        """The text the file should have now, and its permissions. Raises `ResourceError` that names the template."""
        values, databases = self._values(env), self._databases(env)
        source = self._source(env)
        try:
            status = source.stat()
            template = _compiled(source, status.st_mtime_ns, status.st_size)
            text = template.render(
                self._facts(env),
                values=values,
                databases=databases,
                hostnames=list(env.hostnames),
                hostname=env.hostnames[0] if env.hostnames else "",
            ).encode()
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            line = f" line {error.lineno}" if hasattr(error, "lineno") else ""
            raise self._error(env, f"the template {source.name}{line}: {error}") from error
        if len(text) > SIZE:
            raise self._error(env, f"the template {source.name} makes more than {SIZE} bytes")
        told = values.told() or databases.told()
        secret = told if self.options.secret is None else self.options.secret
        return text, SECRET if secret else PLAIN

    def _values(self, env: Environment) -> _Values:
        declared = resolve_values(self.setting.values, env.tenant.settings, self._facts(env))
        return _Values({**declared, **env.secrets}, self.setting.secret_values | env.secrets.keys())

    def _databases(self, env: Environment) -> _Values:
        """How the environment reaches its databases on servers, by resource; all of it is secret."""
        found: dict[str, Any] = {}
        for name, login in env.logins.items():
            place = env.place(name)
            if place is not None and place.server:
                address = make_url(self.setting.servers.get(place.server).address)
                url = address.set(username=login.user, password=login.password, database=place.database)
                found[name] = {
                    "server": place.server,
                    "host": address.host,
                    "port": address.port,
                    "name": place.database,
                    "prefix": place.prefix,
                    "user": login.user,
                    "password": login.password,
                    "url": url.render_as_string(hide_password=False),
                }
        return _Values(found, frozenset(found))

    # --- life ---

    def _create(self, env: Environment) -> None:
        text, permissions = self.render(env)
        if self._read(env) != text or self._mode(env) != permissions:
            paths.write_beneath(*self.spot(env), text, permissions=permissions)

    def _read(self, env: Environment) -> bytes | None:
        try:
            return paths.read_beneath(*self.spot(env))
        except FileNotFoundError:
            return None

    def _mode(self, env: Environment) -> int | None:
        status = self.status(env)
        return stat.S_IMODE(status.st_mode) if status else None

    def _check(self, env: Environment) -> list[Finding]:
        text, permissions = self.render(env)
        wide = self._permissions(env, permissions)
        faults = [wide] if wide else []
        if self._read(env) != text:
            what = f"{self.locate(env)} differs from what {self._source(env).name} says now"
            remedy = f"Run `tenantry tenant edit {env.tenant.slug}` to write it again."
            faults.append(Finding(self.name, False, what, remedy))
        return faults or [Finding(self.name, True, f"rendered {self.locate(env)}")]

    # --- isolation ---

    def _allowed(self, env: Environment) -> int:
        return self.render(env)[1]

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        return [*super()._attack(env, other), self._spilled(env, other)]

    def _spilled(self, env: Environment, other: Environment) -> Attempt:
        """Whether the file holds a secret or a login of the other's that is not its own as well."""
        text = (self._read(env) or b"").decode("utf-8", "replace")
        own = set(_secrets(env).values())
        for name, secret in _secrets(other).items():
            if secret not in own and (secret in text or json.dumps(secret)[1:-1] in text):
                return Breach(self.name, SPILLED, f"{self.locate(env)} holds {name} of {other.tenant.slug}")
        return Attempt(self.name, SPILLED)

    def _seek(self, env: Environment, trace: str) -> list[str]:
        text = (self._read(env) or b"").decode("utf-8", "replace")
        return re.findall(re.escape(trace) + "[0-9a-f]+", text)

    def _measure(self, env: Environment) -> Usage:
        return Usage(bytes=len(self._read(env) or b""), files=int(self._exists(env)))

    def _dump(self, env: Environment, into: Path) -> None:
        paths.write_beneath(into, self.name, paths.read_beneath(*self.spot(env)))

    def _load(self, env: Environment, source: Path) -> None:
        """The copy as it was; where the values changed since, a check names the drift and `create` writes it anew."""
        permissions = self.render(env)[1]
        paths.write_beneath(*self.spot(env), paths.read_beneath(source, self.name), permissions=permissions)

    def _prepare(self) -> None:
        status = self._template.stat()
        try:
            _compiled(self._template, status.st_mtime_ns, status.st_size)
        except TemplateError as error:
            line = getattr(error, "lineno", "?")
            raise self._error(None, f"the template {self._template.name} line {line}: {error}") from error

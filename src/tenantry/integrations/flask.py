"""Flask: each request works for its tenant, with a secret key, settings and a database session of the tenant's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from flask import Config as FlaskConfig
from flask import Flask, Response, g, request
from werkzeug.local import LocalProxy

import tenantry
from tenantry.context import _current, current_environment, current_tenant
from tenantry.credentials import Role
from tenantry.errors import TenantryError
from tenantry.integrations.sqlalchemy import RawEngine, TenantSession
from tenantry.runtime import Runtime, WsgiTenantMiddleware, pages

__all__ = ["Tenantry", "current_user", "requires"]

P = ParamSpec("P")
R = TypeVar("R")

current_user = LocalProxy(tenantry.current_user)
"""The user who makes the request, looked up when it is first used; false where nobody is signed in."""


def requires(role: Role | str = Role.USER) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of views that want a user of at least this role; see `tenantry.require`."""
    wanted = Role(role)

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def guarded(*arguments: P.args, **named: P.kwargs) -> R:
            tenantry.require(wanted)
            return view(*arguments, **named)

        return guarded

    return decorate


SECRET: Final = "SECRET_KEY"  # noqa: S105 - the name of a setting


class Tenantry:
    """Makes a Flask application serve many tenants: `Tenantry(app)`, or `Tenantry(app, db=db)` with Flask-SQLAlchemy.

    Afterwards `g.tenant` is the tenant of a request, `current_user` in templates its user;
    `app.config["SECRET_KEY"]` is a key of its own, so that sessions, CSRF and other signed tokens of
    one tenant are void at another one, and `db.session` is a session on its database. `settings` names keys of
    `app.config` whose values are the tenant's: {"SITE_NAME": "site_name"}. Refusals (`TenantryError`) are answered with
    a page, or as problem+json.
    """

    def __init__(
        self,
        app: Flask | None = None,
        runtime: Runtime | None = None,
        *,
        config: Path | str | None = None,
        db: Any = None,
        resource: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._db = db
        self._resource = resource
        self._settings = dict(settings or {})
        self._runtime = runtime
        if app is not None:
            self.init_app(app)

    @property
    def runtime(self) -> Runtime:
        """The runtime of this application; connected when it is first used."""
        if self._runtime is None:
            self._runtime = tenantry.connect(self._config)
        return self._runtime

    def init_app(self, app: Flask) -> None:
        """Do it; afterwards the application's own start-up must need no tenant."""
        app.extensions["tenantry"] = self
        app.wsgi_app = WsgiTenantMiddleware(app.wsgi_app, self.runtime)  # type: ignore[method-assign]
        app.config = TenantConfig(app.config, self.runtime, self._settings)
        app.before_request_funcs.setdefault(None, []).insert(0, _remember)
        app.register_error_handler(TenantryError, self._refused)
        app.context_processor(lambda: {"current_user": current_user})
        if self._db is not None:
            take_over(app, self._db, self._resource)

    def _refused(self, error: TenantryError) -> Response:
        answer = pages.refusal(error, request.headers.get("accept", ""), self.runtime.settings.data)
        return Response(answer.body, answer.status, answer.headers)


class TenantConfig(FlaskConfig):
    """A configuration that answers for the current tenant: its secret key, and the values named as its own."""

    def __init__(self, given: FlaskConfig, runtime: Runtime, settings: Mapping[str, str]) -> None:
        super().__init__(given.root_path, dict(given))
        self._runtime = runtime
        self._names = dict(settings)

    def __getitem__(self, key: str) -> Any:
        if key == SECRET:
            return self._runtime.secret("flask").hex()
        if key in self._names and _current.get() is not None:
            return self._runtime.values()[self._names[key]]
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As `config[key]`, or the default where there is none."""
        return self[key] if key in self or key == SECRET else default


def take_over(app: Flask, db: Any, resource: str | None = None) -> None:
    """Let Flask-SQLAlchemy's `db.session` be a `TenantSession`, and its own engines open nothing any more."""
    factory = db.session.session_factory
    factory.class_ = type("TenantSession", (TenantSession, factory.class_), {})
    factory.configure(resource=resource)
    with app.app_context():
        for engine in db.engines.values():
            _close_down(engine)


def _close_down(engine: Any) -> None:
    from sqlalchemy import event

    engine.dispose()

    @event.listens_for(engine, "do_connect")
    def refuse(*_: Any) -> None:
        raise RawEngine(database=engine.url.render_as_string(hide_password=True))


def _remember() -> None:
    g.environment = current_environment()
    g.tenant = current_tenant()

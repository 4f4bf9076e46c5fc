"""What kinds on PostgreSQL servers have in common: the administrator's connections, and work on each server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from tenantry.errors import ServerUnavailable
from tenantry.model import Finding, Server, ServerState
from tenantry.resources import postgres_admin as admin
from tenantry.resources import server_database
from tenantry.resources.postgres_admin import Admin

T = TypeVar("T")


class PostgresKind(server_database.ServerDatabase):
    """A kind that lies on PostgreSQL servers."""

    server_kind = "postgres"
    faults = (OSError, psycopg.Error, SQLAlchemyError)

    @contextmanager
    def _admin(self, server: Server) -> Iterator[Admin]:
        with self._listening(server), admin.connected(server) as connection:
            yield connection

    @contextmanager
    def _listening(self, server: Server) -> Iterator[None]:
        """Note that a server does not answer, so that no new tenant is placed there for a while."""
        try:
            yield
        except ServerUnavailable as error:
            if admin.is_silent(error):
                self.setting.servers.silent(server.name)
            raise

    def _on_each(self, action: Callable[[Admin, Server], T], *, every: bool = False) -> list[T]:
        """Do something on each server that takes new tenants, or on all; those that are down wait for another time."""
        done: list[T] = []
        silent: ServerUnavailable | None = None
        for server in self.setting.servers.of(self.server_kind):
            if server.admin and (every or server.state is ServerState.OPEN):
                try:
                    with self._admin(server) as connection:
                        done.append(action(connection, server))
                except ServerUnavailable as error:
                    silent = error
        if silent is not None and not done:
            raise silent
        return done

    @classmethod
    def _probe(cls, server: Server) -> list[Finding]:
        return admin.probe(server)

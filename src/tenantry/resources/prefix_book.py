"""What a shared database says of itself: whose each prefix is. It lies in a table beside the tenants' own.

An entry is written before the first table of its prefix is made, and goes after the last one. So whatever a killed
process leaves behind is known to be ours, and what begins so without an entry never was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

TABLE: Final = "tenantry_prefix"


class State(StrEnum):
    """How far the tables of a prefix are."""

    MAKING = "making"  # nobody was served from them yet
    READY = "ready"
    SCRATCH = "scratch"  # for the time of one call


@dataclass(frozen=True, slots=True)
class Entry:
    """One prefix that is ours."""

    prefix: str
    owner: str  # the environment's id; "" for none
    resource: str
    state: State


class Book(ABC):
    """The table of one database; each call takes a connection to it."""

    table: str  # the statement that makes it

    @abstractmethod
    def ask(self, connection: Any, statement: str, *values: str) -> Sequence[tuple[Any, ...]]:
        """The rows of a statement; none where the table is missing."""

    @abstractmethod
    def make(self, connection: Any) -> None:
        """Make the table, where it is missing."""

    def entry(self, connection: Any, prefix: str) -> Entry | None:
        """What the book says about a prefix."""
        query = f"SELECT prefix, owner, resource, state FROM {TABLE} WHERE prefix = %s"  # noqa: S608
        for name, owner, resource, state in self.ask(connection, query, prefix):
            return Entry(name, owner, resource, State(state))
        return None

    def enter(self, connection: Any, entry: Entry) -> None:
        """Write down whose a prefix is going to be. Raises what the server does where somebody has it."""
        self.make(connection)
        statement = f"INSERT INTO {TABLE} (prefix, owner, resource, state) VALUES (%s, %s, %s, %s)"  # noqa: S608
        self.ask(connection, statement, entry.prefix, entry.owner, entry.resource, entry.state.value)

    def put(self, connection: Any, prefix: str, state: State) -> None:
        """Write down how far the tables of a prefix are."""
        self.ask(connection, f"UPDATE {TABLE} SET state = %s WHERE prefix = %s", state.value, prefix)  # noqa: S608

    def forget(self, connection: Any, prefix: str) -> None:
        """Remove a prefix from the book."""
        self.ask(connection, f"DELETE FROM {TABLE} WHERE prefix = %s", prefix)  # noqa: S608

    def scratches(self, connection: Any, resource: str) -> list[str]:
        """Prefixes that were for the time of one call; whoever uses one holds its lock."""
        query = f"SELECT prefix FROM {TABLE} WHERE state = %s AND resource = %s ORDER BY prefix"  # noqa: S608
        return [str(prefix) for (prefix,) in self.ask(connection, query, State.SCRATCH.value, resource)]

"""Every address of the API and the portal with the right that it takes: one that says none is not served at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from tenantry.identity import RIGHTS, Reach, Right
from tenantry.refusals import RightMissing

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

OPEN: Final[Mapping[str, int]] = {"/api/openapi.json": 200, "/admin/static": 200, "/admin": 308}
"""What is no endpoint of ours and open to everybody, with its answer: the description, styles and scripts."""

PROVISIONING: Final = ("POST", "/admin/tenants")
"""The one address below /admin that programs come to."""

_SAID: Final = "tenantry_says"


@dataclass(frozen=True, slots=True)
class Says:
    """What an endpoint says of itself."""

    verbs: tuple[str, ...]  # that whoever asks must be allowed to, all of them; none: it is open to everybody
    gives: int | None = None  # the status of its answer; None: 200 for what only looks, 303 for a form

    @classmethod
    def of(cls, endpoint: Callable[..., Any] | None, path: str) -> Self:
        """What this endpoint says. Raises `RightMissing`."""
        said: Self | None = getattr(endpoint, _SAID, None)
        if said is None or any(verb not in RIGHTS for verb in said.verbs):
            raise RightMissing(path=path)
        return said


def says(said: Says) -> Callable[[Endpoint], Endpoint]:
    """Let an endpoint say this of itself."""

    def marked(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _SAID, said)
        return endpoint

    return marked


@dataclass(frozen=True, slots=True)
class Door:
    """One address."""

    method: str
    path: str
    rights: tuple[Right, ...]
    gives: int

    @property
    def is_page(self) -> bool:
        """Whether browsers come here, with a session; else programs, with a token."""
        return self.path.startswith(("/admin", "/signup")) and (self.method, self.path) != PROVISIONING

    @property
    def reach(self) -> Reach | None:
        """What of its rights is asked for at the door, the narrowest; None where it is open to everybody."""
        asked = [one.reach for one in self.rights if one.reach.argument is None or self._names(one.reach.argument)]
        return min(asked, key=list(Reach).index, default=None)

    def _names(self, argument: str) -> bool:
        return not self.is_page or "{" + argument + "}" in self.path


def doors(app: FastAPI) -> list[Door]:
    """All of them, in the order in which they are tried. Raises `RightMissing` for one that says no right."""
    return [door for route in iter_route_contexts(app.routes) for door in _doors(route)]


def _doors(route: Any) -> Iterator[Door]:
    path = str(route.path)
    said = Says((), OPEN[path]) if path in OPEN else Says.of(route.endpoint, path)
    for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
        rights = tuple(RIGHTS[verb] for verb in said.verbs)
        yield Door(method, path, rights, said.gives or (200 if method == "GET" else 303))

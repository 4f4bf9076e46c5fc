"""What arguments of verbs look like, for the description alone: the verbs check them, and say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tenantry.identity.principal import SCOPES
from tenantry.identity.sso.entities import LONGEST as METADATA
from tenantry.model import HOST_LENGTH, NAME_LENGTH, SLUG_LENGTH
from tenantry.registry.tenants import SORTS

Shape = Mapping[str, Any]

_SLUG: Final[Shape] = {
    "pattern": "^[a-z0-9](-?[a-z0-9])*$",
    "minLength": 1,
    "maxLength": SLUG_LENGTH,
    "examples": ["acme"],
}
_SHARE: Final[Shape] = {"pattern": r"^([1-9][0-9]{0,3}|[1-9][0-9]?%)$", "examples": ["10%"]}

_SHAPES: Final[Mapping[str, Shape]] = {
    "slug": _SLUG,
    "slugs": _SLUG,
    "tenants": {"examples": ["acme"]},
    "tenant": {"examples": ["acme"]},
    "host": {"minLength": 1, "maxLength": HOST_LENGTH, "examples": ["www.acme.example"]},
    "mail": {"format": "email", "maxLength": 254, "examples": ["ana@example.org"]},
    "name": {"minLength": 1, "maxLength": NAME_LENGTH},
    "address": {"format": "email", "maxLength": 254, "examples": ["ana@example.org"]},
    "begins": {"examples": ["2036-11-28T02:00"]},
    "ends": {"examples": ["2036-11-28T04:00"]},
    "about": {"maxLength": 1000},
    "algorithm": {"enum": ["rsa", "ed25519"]},
    "admin": {"examples": ["ana@example.org"]},
    "scopes": {"enum": list(SCOPES)},
    "sort": {"enum": [f"{way}{column}" for column in SORTS for way in ("", "-")]},
    "sample": _SHARE,
    "stop_after": _SHARE,
    "waves": {"pattern": "^[1-9][0-9]?%$", "examples": ["10%"]},
    "disk": {"pattern": "^[1-9][0-9]{0,3}(MB|GB)$", "examples": ["5GB"]},
    "rate": {"pattern": "^[1-9][0-9]{0,3}/[smh]$", "examples": ["20/s"]},
    "operation_id": {"examples": ["019aa2f0-7c1e-7d3a-9a53-4b1f6f0c2d11"]},
    "since": {"examples": ["2026-11-21"]},
    "until": {"examples": ["2026-11-22"]},
    "domain": {"minLength": 1, "maxLength": HOST_LENGTH, "examples": ["acme.example"]},
    "issuer": {"examples": ["https://login.acme.example"]},
    "directory": {"examples": ["9e3f8a5c-1f0e-4b7a-8a51-3d2c6f0b9e77"]},
    "client_id": {"maxLength": 255, "examples": ["tenantry"]},
    "metadata_url": {"examples": ["https://login.acme.example/metadata"]},
    "metadata": {"maxLength": METADATA, "examples": ["<EntityDescriptor …"]},
    "default_role": {"enum": ["admin", "superuser", "user", "none"]},
    "roles": {"examples": [{"it-department": "admin"}]},
    "reason": {"maxLength": 500, "examples": ["unpaid"]},
    "settings": {"examples": [{"site_name": "Acme & Söhne"}]},
    "text": {"minLength": 1, "examples": ["slug,name,plan\nacme,Acme & Söhne,pro\n"]},
}
"""By the argument's name, which means the same at every verb."""

_AT: Final[Mapping[tuple[str, str], Shape]] = {
    ("tenant.create", "name"): {"minLength": 1, "maxLength": NAME_LENGTH, "examples": ["Acme & Söhne"]},
    ("admin.invite", "name"): {"examples": ["Ana"]},
    ("support.list", "slug"): {"examples": ["acme"]},
    ("org.unassign", "slugs"): {"examples": ["acme"]},
    ("tenant.rename", "to"): {**_SLUG, "examples": ["acme-2"]},
    ("server.add", "name"): {"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", "examples": ["pg1"]},
    ("server.add", "kind"): {"enum": ["postgres", "mysql"]},
    ("token.create", "name"): {"minLength": 1, "maxLength": NAME_LENGTH, "examples": ["deploy"]},
}
"""By the verb and the argument, where that says more."""


def shape(verb: str, name: str) -> dict[str, Any]:
    """What the description says of an argument, beside its type."""
    return dict(_AT.get((verb, name)) or _SHAPES.get(name, {}))

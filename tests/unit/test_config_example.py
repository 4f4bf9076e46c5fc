"""One example file is the documentation, the help and the schema of all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tenantry.config import Config, faults, load
from tenantry.config.example import entries, everything, example, explain, general, json_schema, starter
from tenantry.config.faults import model_at

CONTROL = {
    "CONTROL_DATABASE_URL": "sqlite:///x",
    "PG_ADMIN_URL": "postgresql://admin@db.example/postgres",
    "SMTP_PASSWORD": "x",
    "PAYMENT_SECRET": "whsec_eA==",
    "STRIPE_SECRET": "whsec_x",
}
REQUIRED = {"ServerSpec": {"kind": "postgres", "url": "postgresql://admin@db.example/postgres"}}


def models(model: type[BaseModel] = Config, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every setting of the models with its field; names the operator chooses are "*"."""
    found: dict[tuple[str, ...], Any] = {}
    for name, field in model.model_fields.items():
        key = (*above, name)
        found[key] = field
        for table, path in ((model_at(model, (name,)), key), (model_at(model, (name, "*")), (*key, "*"))):
            if table:
                found |= models(table, path)
    found.pop(("root",), None)
    return found


def test_it_is_a_platform(tmp_path: Path) -> None:
    """The example works as it stands, and with everything in it switched on."""
    for text in (example(), everything()):
        (tmp_path / "tenantry.toml").write_text(text)
        assert faults(tmp_path / "tenantry.toml", CONTROL) == []
        assert isinstance(load(tmp_path / "tenantry.toml", CONTROL), Config)


SHORT = {("blueprints", "*", kind, "*") for kind in ("resources", "hostnames", "values", "counts")}
"""Tables the example writes on one line, whose keys have no comment of their own."""


def test_every_setting_stands_in_it() -> None:
    """Each setting of the models has its line and its help in the example, and there is nothing else."""
    shown = {general(key) for key in entries() if general(key)[:4] not in SHORT}
    known = {key for key in models() if key[:4] not in SHORT}
    assert shown - known == {("blueprints", "*"), ("plans", "*"), ("servers", "*")}
    assert known - shown == {("blueprints",), ("plans",), ("servers",)}
    assert all(len(entry.help) > 10 for entry in entries().values())


def test_it_shows_the_defaults(tmp_path: Path) -> None:
    """What the example shows for a setting that has a default is that default."""
    fields = models()
    compared = 0
    for key, entry in entries().items():
        field = fields.get(general(key))  # type: ignore[arg-type]
        if entry.value is None or field is None or (key[:1] in (("blueprints",), ("plans",)) and "title" in key):
            continue
        default = field.get_default(call_default_factory=True)
        if default in (None, PydanticUndefined, {}):
            continue
        model = model_at(Config, key[:-1])
        assert model
        table = model.model_validate({**REQUIRED.get(model.__name__, {}), key[-1]: entry.value})
        assert getattr(table, str(key[-1])) == default, key
        compared += 1
    assert compared > 20


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("platform.domain", "Where tenants live"),
        ("blueprints.any.environments", "running instances"),
        ("blueprints.site.values.home", "Any text, number"),
        ("blueprints.other.hostnames", "tell tenants apart"),
        ("worker", "how operations are run"),
    ],
)
def test_explaining(key: str, words: str) -> None:
    """The help of a setting is its comment, whatever a blueprint is called."""
    entry = explain(key)
    assert entry
    assert words in entry.help


def test_what_cannot_be_explained() -> None:
    """A key that is no setting has no help."""
    assert explain("platform.domian") is None
    assert explain("") is None


def test_starter_takes_any_name(tmp_path: Path) -> None:
    """A first file can be written for a platform of any name."""
    name = 'O\'Neill "& Söhne" \\ 100%'
    (tmp_path / "tenantry.toml").write_text(starter(name))
    assert load(tmp_path / "tenantry.toml", {}).platform.name == name


def test_schema_knows_every_setting() -> None:
    """The JSON Schema has each setting of the models with its help, and not the program's own ones."""
    schema = json_schema()
    assert set(schema["properties"]) == set(Config.model_fields) - {"root"}
    properties = schema["$defs"]["Platform"]["properties"]
    assert all(about["description"] for about in properties.values())
    assert {"type": "string"} in properties["control"]["anyOf"]
    assert schema["$defs"]["HostnamePattern"]["anyOf"][0]["type"] == "string"

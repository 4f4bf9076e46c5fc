"""A tenant's rows as CSV and JSON: they read back as they were, whatever is in them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import servers
from ground import PATIENCE
from shelves import RowsShelves, Shelves
from tenantry.errors import ResourceError, ServerUnavailable
from tenantry.model import ExportForm
from tenantry.platform.exports import ExportThere, NothingToExport
from worlds import PostgresWorld, RowsWorld

pytestmark = pytest.mark.postgres

TABLES = """
CREATE SCHEMA "odd.schema";
CREATE TABLE note (id int PRIMARY KEY, body text, amount numeric, facts json, tags text[], at timestamptz, raw bytea);
CREATE TABLE "odd.schema"."a/b ""c""%" ("x,y" text);
CREATE TABLE event (day date NOT NULL, what text) PARTITION BY RANGE (day);
CREATE TABLE event_old PARTITION OF event FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE event_new PARTITION OF event FOR VALUES FROM ('2020-01-01') TO ('2040-01-01');
CREATE TABLE hollow (id int PRIMARY KEY);
"""
BODIES = ["", None, 'say "hi", then\r\n\tgo', "\\N \\. \\\\ \\n", "äß漢🙂", "=1+1", "NULL", "'"]
ODD = "odd%2Eschema.a%2Fb %22c%22%25"


def fill(world: PostgresWorld, resource: object, env: object) -> None:
    """Rows whose texts mean something to CSV, JSON and COPY."""
    for number, body in enumerate(BODIES):
        text = sql.SQL(
            "INSERT INTO note (id, body, amount, facts, tags, at, raw) VALUES ({}, {}, 1.50, {}, '{{a,\"b,c\"}}', "
            "'2026-01-02 03:04:05+00', '\\x00ff')"
        ).format(number, body, '{"a":\n 1}')
        world.query(resource, env, text.as_string(None))  # type: ignore[arg-type]
    world.query(resource, env, 'INSERT INTO "odd.schema"."a/b ""c""%" ("x,y") VALUES (\'one\')')  # type: ignore[arg-type]
    world.query(resource, env, "INSERT INTO event (day, what) VALUES ('2010-01-01', 'old'), ('2030-01-01', 'new')")  # type: ignore[arg-type]


def read(folder: Path, name: str, form: ExportForm) -> list[dict[str, object]]:
    path = folder / f"{name}.{form}"
    assert path.stat().st_mode & 0o777 == 0o600
    if form == "json":
        found = json.loads(path.read_text("utf-8"))
        assert isinstance(found, list)
        return found
    with path.open(encoding="utf-8", newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


@pytest.mark.parametrize("world", ["postgres-15", "rows-15", "rows-18"], indirect=True)
@pytest.mark.parametrize("form", ["csv", "json"])
async def test_rows_read_back(world: PostgresWorld, tmp_path: Path, form: ExportForm) -> None:
    """Every text, NULL, document and array is read back by other programs; another tenant's rows are not there."""
    world.migration("0003_tables.sql", TABLES)
    resource, acme, other = world.resource(), world.environment(), world.environment("other")
    for env in (acme, other):
        await resource.create(env)
    fill(world, resource, acme)
    world.query(resource, other, "INSERT INTO note (id, body) VALUES (99, 'theirs')")
    found = {one.table: one for one in await resource.export(acme, tmp_path / "out", form)}
    folder = tmp_path / "out" / resource.name
    assert {path.name for path in folder.iterdir()} == {one.file for one in found.values()}
    assert found["note"].rows == len(BODIES)
    notes = sorted(read(folder, "note", form), key=lambda row: int(str(row["id"])))
    bodies = [row["body"] for row in notes]
    assert bodies == (BODIES if form == "json" else [body or "" for body in BODIES])
    assert set(notes[0]) == {"id", "body", "amount", "facts", "tags", "at", "raw"}
    if form == "json":
        assert notes[0]["facts"] == {"a": 1}
        assert notes[0]["tags"] == ["a", "b,c"]
    else:
        assert (notes[0]["amount"], notes[0]["tags"], notes[0]["raw"]) == ("1.50", '{a,"b,c"}', "\\x00ff")
        raw = (folder / "note.csv").read_text("utf-8")
        assert raw.startswith('id,body,amount,facts,tags,at,raw\n0,"",1.50,')  # empty, and not NULL
    assert read(folder, ODD, form) == [{"x,y": "one"}]
    assert {row["what"] for row in read(folder, "event", form)} == {"old", "new"}
    assert read(folder, "hollow", form) == []
    assert not {"tenantry_trace", "tenantry_schema", "tenantry_tenants", "event_old"} & found.keys()
    assert "password" not in (folder / f"tenantry_user.{form}").read_text()
    with pytest.raises(ResourceError, match="there already"):
        await resource.export(acme, tmp_path / "out", form)


async def test_an_export_is_of_one_moment(
    rows_world: RowsWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed while the tables are written is in none of them, and an export that breaks leaves nothing."""
    from tenantry.resources import postgres_export

    rows_world.migration("0003_tables.sql", TABLES)
    resource, acme = rows_world.resource(), rows_world.environment()
    await resource.create(acme)
    first = postgres_export._written

    def meanwhile(connection: object, one: object, *rest: object) -> object:
        written = first(connection, one, *rest)  # type: ignore[arg-type]
        rows_world.query(resource, acme, "INSERT INTO note (id) SELECT coalesce(max(id), 0) + 1 FROM note")
        return written

    monkeypatch.setattr(postgres_export, "_written", meanwhile)
    found = await resource.export(acme, tmp_path / "out", "csv")
    assert next(one.rows for one in found if one.table == "note") == 0
    assert rows_world.query(resource, acme, "SELECT count(*) FROM note") == [(len(found),)]

    def broken(*_: object) -> object:
        raise psycopg.OperationalError("gone")

    monkeypatch.setattr(postgres_export, "_written", broken)
    with pytest.raises(ServerUnavailable, match="gone"):
        await resource.export(acme, tmp_path / "again", "csv")
    assert list((tmp_path / "again").iterdir()) == []


@pytest.mark.parametrize("made", [Shelves, RowsShelves], ids=["own", "shared"])
async def test_the_command(tmp_path: Path, postgres: servers.Postgres, made: type[Shelves]) -> None:
    """`tenantry tenant export` writes a directory that was not there, tells its files, and is in the audit log."""
    shelves = made(tmp_path / "platform", postgres)
    try:
        async with shelves.open() as platform:
            operation = await platform.tenants.create("acme")
            await platform.operations.finish(operation.id)
            for form in ("csv", "json"):
                into = str(tmp_path / form)
                with shelves.command("tenant", "export", "acme", "--into", into, "--format", form) as process:
                    text = process.communicate(timeout=PATIENCE)[0]
                assert process.returncode == 0, text
                assert (tmp_path / form / "production" / "db" / f"page.{form}").is_file()
                with shelves.command("tenant", "export", "acme", "--into", into) as process:
                    assert "there already" in " ".join(process.communicate(timeout=PATIENCE)[0].split())
                assert process.returncode == 2
            with pytest.raises(NothingToExport):
                await platform.tenants.export("acme", tmp_path / "none", environment="nowhere")
            with pytest.raises(ExportThere):
                await platform.tenants.export("acme", tmp_path / "csv")
            assert [entry.action for entry in await platform.registry.entries(limit=1)] == ["tenant.export"]
    finally:
        shelves.clear()

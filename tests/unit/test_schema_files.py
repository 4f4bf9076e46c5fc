"""Migration files: their names and numbers, their statements, and what is refused before any database is touched."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.config import ResourceSpec
from tenantry.errors import MigrationInvalid
from tenantry.resources import Resource, Setting, build, history, schema


def write(folder: Path, **files: str) -> Path:
    """Files by stem; the ending is .sql unless the name ends in _py."""
    for stem, text in files.items():
        name = f"{stem[1:-3]}.py" if stem.endswith("_py") else f"{stem[1:]}.sql"
        (folder / name).write_text(text)
    return folder


def test_files_are_read_in_order_with_their_parts(tmp_path: Path) -> None:
    """Numbered files are found in order; other files are left alone."""
    write(tmp_path, _0002_b="SELECT 2", _0001_a="SELECT 1;\n-- Down\nSELECT 0;", _0003_c_py="def upgrade(c): pass")
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / "__pycache__").mkdir()
    first, second, third = schema.read(tmp_path).migrations
    assert [m.version for m in (first, second, third)] == ["0001_a", "0002_b", "0003_c"]
    assert (first.name, first.up, first.down) == ("a", ("SELECT 1;",), ("\nSELECT 0;",))
    assert (second.up, second.down) == (("SELECT 2",), None)
    assert third.is_python
    assert callable(third.function("upgrade"))
    assert third.function("downgrade") is None


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["0001_a.sql", "0003_c.sql"], r"0003_c\.sql: its number 0003 comes where 0002 is missing"),
        (["0002_a.sql"], "comes where 0001 is missing"),
        (["0001_a.sql", "0001_b.sql"], r"0001_b\.sql: its number 0001 is taken"),
        (["1_a.sql"], "has not the form 0001_name.sql"),
        (["0001.sql"], "has not the form"),
        (["0001_a.sql", "fix.py"], "fix.py: its name has not the form"),
    ],
)
def test_wrong_names_and_numbers_are_named(tmp_path: Path, names: list[str], reason: str) -> None:
    """A gap, a repeat and a name of another form are refused with the file's name."""
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(MigrationInvalid, match=reason):
        schema.read(tmp_path)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("CREATE TABLE a (id); COMMIT;", "statement COMMIT"),
        ("/* it */ -- is\n begin immediate;", "statement BEGIN"),
        ("; ;END", "statement END"),
        ("attach 'other.sqlite' as other;", "statement ATTACH"),
        ("VACUUM", "statement VACUUM"),
        ("INSERT INTO a VALUES ('never closed);", "that begins 'INSERT INTO a .*' does not end"),
        ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;", "does not end"),
        ("SELECT 1;\n-- down\nSELECT 2;\n-- down\n", "more than one line '-- down'"),
    ],
)
def test_what_cannot_run_in_one_transaction_is_refused(tmp_path: Path, sql: str, reason: str) -> None:
    """Statements that end the transaction or reach another database, and halves of one, are refused when read."""
    write(tmp_path, _0001_a=sql)
    with pytest.raises(MigrationInvalid, match=rf"0001_a\.sql: .*{reason}"):
        schema.read(tmp_path)


def test_broken_python_is_named(tmp_path: Path) -> None:
    """A Python file that does not load, or has no upgrade, is named when it is first needed."""
    write(tmp_path, _0001_a_py="import nothing_of_this_name", _0002_b_py="x = 1")
    first, second = schema.read(tmp_path).migrations
    with pytest.raises(MigrationInvalid, match=r"0001_a\.py: it cannot be loaded"):
        first.function("upgrade")
    with pytest.raises(MigrationInvalid, match=r"0002_b\.py: it has no function"):
        second.function("upgrade")


def test_changes_are_seen_and_line_ends_are_not(tmp_path: Path) -> None:
    """A changed file has another checksum at once; the line ends of another system change nothing."""
    path = write(tmp_path, _0001_a="SELECT 1;\n") / "0001_a.sql"
    before = schema.read(tmp_path)
    path.write_bytes(b"SELECT 1;\r\n")
    assert schema.read(tmp_path).fingerprint == before.fingerprint
    path.write_bytes(b"SELECT 2;\n")
    os.utime(path, ns=(1, 1))
    after = schema.read(tmp_path)
    assert after.fingerprint != before.fingerprint
    assert after.migrations[0].checksum != before.migrations[0].checksum


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """A file in another encoding is refused by name."""
    (tmp_path / "0001_a.sql").write_bytes(b"SELECT '\xff';")
    with pytest.raises(MigrationInvalid, match=r"0001_a\.sql: it is not UTF-8"):
        schema.read(tmp_path)


VALUES = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20), max_size=6)


@given(values=VALUES, comment=st.text(st.sampled_from("a;' \"-/*"), max_size=10))
def test_splitting_keeps_every_statement_whole(values: list[str], comment: str) -> None:
    """Whatever stands in strings and comments, each statement comes out once, and does what the script did."""
    remark = comment.replace("*/", "").replace("/*", "").rstrip("*")
    inserts = [f"INSERT INTO t VALUES ('{value.replace(chr(39), chr(39) * 2)}'); -- {comment}\n" for value in values]
    script = f"/* {remark} */ CREATE TABLE t (v TEXT);\n" + "".join(inserts)
    statements = schema.split(script, "0001_a.sql")
    assert len(statements) == len(values) + 1
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
        assert [value for (value,) in connection.execute("SELECT v FROM t ORDER BY rowid")] == values


@given(sql=st.text(st.sampled_from("COMITBEGN begin;'\"`[]-/*\n\t\f ﻿\u00a0x"), max_size=40))
def test_no_text_ends_a_transaction(sql: str) -> None:
    """Whatever a script says, what is left of it after the reading cannot end the transaction it runs in."""
    try:
        statements = schema.split(sql, "0001_a.sql")
    except MigrationInvalid:
        return
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for statement in statements:
            try:
                connection.execute(statement)
            except (sqlite3.Error, sqlite3.Warning):
                break
        assert connection.in_transaction


# --- what files say of themselves ---------------------------------------------------------------------------------


def test_the_first_lines_tell_phase_and_limits(tmp_path: Path) -> None:
    """Comments at the top of SQL and Python files set phase, transaction and limits; without them all is plain."""
    write(
        tmp_path,
        _0001_a="SELECT 1",
        _0002_b="-- Why\n-- tenantry: phase=post lock_timeout=10s\n-- tenantry: transaction=off retries=2\nSELECT 2",
        _0003_c_py="# tenantry: phase=post statement_timeout=1h\ndef upgrade(c): pass",
    )
    first, second, third = (m.header for m in schema.read(tmp_path).migrations)
    assert first == schema.PLAIN
    assert (second.phase, second.transaction, second.lock_timeout, second.retries) == ("post", "off", 10.0, 2)
    assert (third.phase, third.statement_timeout, third.lock_timeout) == ("post", 3600.0, None)
    assert history.posts(schema.read(tmp_path)) == {"0002_b", "0003_c"}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("0001_a.sql", "-- tenantry: fase=post\n", "says fase=post"),
        ("0001_a.sql", "-- tenantry: phase=after\n", "says phase=after"),
        ("0001_a.sql", "-- tenantry: post\n", "says post="),
        ("0001_a.sql", "-- tenantry: lock_timeout=-1s\n", "says lock_timeout=-1s"),
        ("0001_a.sql", "-- tenantry: retries=101\n", "says retries=101"),
        ("0001_a.sql", "-- tenantry: phase=post\n-- tenantry: phase=pre\n", "say something twice"),
        ("0001_a.sql", "SELECT 1;\n-- tenantry: phase=post\n", "behind its first statement"),
        ("0001_a.py", "# tenantry: transaction=off\ndef upgrade(c): pass", "transaction=off is for SQL files"),
    ],
)
def test_wrong_first_lines_are_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    """A word that is not known, a value that makes no sense and a line in the wrong place are refused, not ignored."""
    (tmp_path / name).write_text(text)
    with pytest.raises(MigrationInvalid, match=reason):
        schema.read(tmp_path)


def test_a_changed_first_line_is_a_changed_file(tmp_path: Path) -> None:
    """A file's phase belongs to its checksum."""
    before = schema.read(write(tmp_path, _0001_a="SELECT 1")).migrations[0]
    after = schema.read(write(tmp_path, _0001_a="-- tenantry: phase=post\nSELECT 1")).migrations[0]
    assert before.checksum != after.checksum
    assert history.applied([("0001_a", after.checksum)], schema.read(tmp_path)) == 1
    with pytest.raises(MigrationInvalid, match="was changed after it had been applied"):
        history.applied([("0001_a", before.checksum)], schema.read(tmp_path))


def memory(folder: Path, texts: list[str]) -> Resource:
    """A resource whose migrations are these."""
    for number, text in enumerate(texts, start=1):
        (folder / f"{number:04}_m.sql").write_text(text)
    spec = ResourceSpec.model_validate({"kind": "memory", "schema": "."})
    return build("db", spec, Setting("site", folder, folder / "var"))


PRE, POST = "SELECT 1", "-- tenantry: phase=post\nSELECT 1"


@pytest.mark.parametrize(
    ("texts", "version", "pre", "newest", "needs"),
    [
        ([PRE, PRE], None, "0002_m", "0002_m", "0002_m"),
        ([PRE, PRE, POST], "0001_m", "0002_m", "0003_m", "0002_m"),
        ([PRE, PRE, POST], "0002_m", "0002_m", "0003_m", "0002_m"),
        ([PRE, PRE, POST], "0003_m", "0003_m", "0003_m", "0002_m"),
        ([PRE, POST, PRE, POST], "0001_m", "0001_m", "0004_m", "0003_m"),
        ([PRE, POST, PRE, POST], "0002_m", "0003_m", "0004_m", "0003_m"),
        ([POST], None, None, "0001_m", None),
    ],
)
def test_a_phase_has_its_target(
    tmp_path: Path, texts: list[str], version: str | None, pre: str | None, newest: str, needs: str | None
) -> None:
    """`pre` stops before the first pending `post`, `post` goes to the newest; code needs the newest `pre`."""
    resource = memory(tmp_path, texts)
    assert resource.target("pre", version) == pre
    assert resource.target("post", version) == resource.target(None, version) == newest
    assert resource.needs == needs

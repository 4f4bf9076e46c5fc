"""The command line, run as its own process."""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import programs
from tenantry.cli import build
from tenantry.cli.output import cell, plain, safe

COMMAND = str(Path(sys.executable).with_name("tenantry"))


def run(at: Path, *arguments: str, typed: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory, without the settings of this process's own environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")}
    return programs.run([COMMAND, *arguments], cwd=at, env=clean | environ, input=typed, capture_output=True, text=True)


def data(at: Path, *arguments: str) -> Any:
    """What a command that succeeds prints as JSON."""
    done = run(at, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform as `tenantry init` writes it."""
    root = tmp_path_factory.mktemp("cli") / "shop"
    done = run(root.parent, "init", "shop")
    assert done.returncode == 0, done.stderr
    return root


# --- beginning ----------------------------------------------------------------------------------------------------


def test_init_writes_a_platform(shop: Path) -> None:
    """`init` names the platform like its directory, and keeps a fresh key that only its owner can read."""
    assert 'name = "shop"' in (shop / "tenantry.toml").read_text()
    assert re.search(r"^TENANTRY_SECRET_KEY=[0-9a-f]{64}$", (shop / ".env").read_text(), re.MULTILINE)
    assert stat.S_IMODE((shop / ".env").stat().st_mode) == 0o600
    assert (shop / ".gitignore").read_text().split() == ["var/", ".env"]
    checked = run(shop, "config", "check")
    assert (checked.returncode, checked.stdout) == (0, "tenantry.toml is correct.\n")


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    """`init` refuses what is there; with --force it writes anew, but never the key, and adds to .gitignore."""
    (tmp_path / ".gitignore").write_text("*.log\n.env\n")
    assert run(tmp_path, "init").returncode == 0
    key = (tmp_path / ".env").read_text()
    (tmp_path / "tenantry.toml").write_text("mine")
    refused = run(tmp_path, "init")
    assert refused.returncode == 3
    assert refused.stderr.startswith("error[file.exists]: 'tenantry.toml' is already there.")
    assert "--force" in refused.stderr
    assert (tmp_path / "tenantry.toml").read_text() == "mine"
    assert run(tmp_path, "init", "--force").returncode == 0
    assert "[platform]" in (tmp_path / "tenantry.toml").read_text()
    assert (tmp_path / ".env").read_text() == key
    assert (tmp_path / ".gitignore").read_text().split() == ["*.log", ".env", "var/"]


def test_init_can_be_tried(tmp_path: Path) -> None:
    """With --dry-run `init` names what it writes and writes nothing."""
    done = run(tmp_path, "init", "new", "--dry-run")
    assert "would write new/tenantry.toml" in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- settings -----------------------------------------------------------------------------------------------------


def test_config_check_names_every_fault(tmp_path: Path) -> None:
    """`config check` prints each fault with its line, ends with 2, and gives the same as JSON."""
    (tmp_path / "tenantry.toml").write_text(
        '[platform]\ndomian = "x"\n[blueprints.site.resources]\nm = {kind = "directory", pth = "x"}\n'
    )
    done = run(tmp_path, "config", "check")
    assert done.returncode == 2
    assert "tenantry.toml:2: platform.domian" in done.stdout
    assert "tenantry.toml:4: blueprints.site.resources.m.pth" in done.stdout
    assert "TENANTRY_SECRET_KEY is not set" in done.stdout
    told = run(tmp_path, "config", "check", "--json")
    assert told.returncode == 2
    found = json.loads(told.stdout)
    assert [fault["line"] for fault in found["faults"]] == [2, 4, None]
    assert found["ok"] is False


def test_config_show_hides_secrets(tmp_path: Path) -> None:
    """`config show` prints what is in force, and covers what is secret."""
    (tmp_path / "tenantry.toml").write_text(
        '[platform]\ncontrol = {env = "URL"}\n'
        '[blueprints.site.values]\npin = {default = {env = "PIN"}, secret = true}\n'
    )
    environ = {"URL": "postgresql://u:geheim@h/x", "PIN": "geheim", "TENANTRY_SERVE__PORT": "81"}
    done = run(tmp_path, "config", "show", **environ)
    assert done.returncode == 0, done.stderr
    assert "serve.port = 81\n" in done.stdout
    assert "blueprints.site.values.pin.default" in done.stdout
    assert "geheim" not in done.stdout + done.stderr
    part = run(tmp_path, "config", "show", "serve", "--json", **environ)
    assert json.loads(part.stdout)["port"] == 81


def test_config_explain(tmp_path: Path) -> None:
    """`config explain` prints the help of the example, the default and the variable, without any platform."""
    done = run(tmp_path, "config", "explain", "platform.domain")
    assert "Where tenants live" in done.stdout
    assert 'platform.domain = "localhost"' in done.stdout
    assert "TENANTRY_PLATFORM__DOMAIN=" in done.stdout
    unknown = run(tmp_path, "config", "explain", "platform.domian")
    assert unknown.returncode == 4
    assert unknown.stderr.startswith("error[config.unknown]: There is no setting 'platform.domian'.")


def test_secret_new(tmp_path: Path) -> None:
    """`secret new` prints a line for .env, another each time."""
    lines = {run(tmp_path, "secret", "new").stdout for _ in range(2)}
    assert len(lines) == 2
    assert all(re.fullmatch(r"TENANTRY_SECRET_KEY=[0-9a-f]{64}\n", line) for line in lines)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("tenant", "list"), 4, "config.missing"),
        (("tenant", "creat"), 2, "usage"),
        (("nonsense",), 2, "usage"),
        (("config", "check", "--nonsense"), 2, "usage"),
        (("tenant", "create"), 2, "usage"),
    ],
)
def test_errors(arguments: tuple[str, ...], status: int, code: str, tmp_path: Path) -> None:
    """An error is one line on stderr with its code and remedy, or with --json one object; the status tells its kind."""
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"error[{code}]: ")
    told = run(tmp_path, *arguments, "--json")
    assert told.returncode == status
    assert json.loads(told.stderr).keys() == {"code", "message", "remedy"}


def test_no_key_no_start(shop: Path, tmp_path: Path) -> None:
    """Without the platform key nothing starts, and the error tells how to make one."""
    (tmp_path / "tenantry.toml").write_bytes((shop / "tenantry.toml").read_bytes())
    for name in ("schema", "templates"):
        (tmp_path / name).symlink_to(shop / name)
    done = run(tmp_path, "tenant", "list")
    assert done.returncode == 2
    assert done.stderr.startswith("error[secret.key]: TENANTRY_SECRET_KEY is not set.")
    assert "token_hex(32)" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    """Help and completion answer without loading the engine, the database layer, the settings or the web."""
    code = (
        "import sys; from tenantry.cli import run; run(['--help']); run(['tenant', 'create', '--help']);"
        "print(sorted({'sqlalchemy', 'dbos', 'pydantic', 'fastapi', 'alembic', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tenantry tenant create" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """Every noun and verb is known to the completion of each shell."""
    script = build().generate_completion(shell=shell)  # type: ignore[arg-type]
    assert all(word in script for word in ("tenant", "suspend", "migrate", "--canary"))


# --- the main job -------------------------------------------------------------------------------------------------


def test_the_life_of_a_tenant(shop: Path) -> None:
    """Create, look, change, rename, suspend, resume and destroy: each ends with 0 and says what became of it."""
    created = run(shop, "tenant", "create", "acme", "--name", "Acme & Söhne", "--set", "home=start")
    assert created.returncode == 0, created.stderr
    assert re.search(r"^  ✓ db +sqlite +\d+ ms   schema 0001_start$", created.stdout, re.MULTILINE)
    assert "acme is ready: acme.localhost\nSign in as admin@acme.localhost" in created.stdout
    assert re.search(r"^  [A-Za-z0-9]{22}$", created.stdout, re.MULTILINE)
    assert run(shop, "tenant", "credentials", "acme").returncode == 1
    assert data(shop, "tenant", "show", "acme")["tenant"]["settings"] == {"home": "start"}
    assert run(shop, "tenant", "check", "acme").returncode == 0

    assert data(shop, "tenant", "rename", "acme", "zeta")["slug"] == "acme"
    assert run(shop, "tenant", "suspend", "zeta", "--reason", "unpaid").stdout.endswith("zeta is suspended.\n")
    again = run(shop, "tenant", "suspend", "zeta")
    assert (again.returncode, again.stderr.split(":")[0]) == (3, "error[tenant.move_refused]")
    listed = run(shop, "tenant", "list", "--status", "suspended").stdout.splitlines()
    assert listed[0].split() == ["slug", "name", "blueprint", "plan", "status", "created"]
    assert listed[1].startswith("zeta  Acme & Söhne  site")

    refused = run(shop, "tenant", "destroy", "zeta")
    assert (refused.returncode, refused.stderr.split(":")[0]) == (3, "error[confirm.missing]")
    assert run(shop, "tenant", "destroy", "zeta", "--yes").returncode == 0
    gone = run(shop, "tenant", "check", "zeta")
    assert (gone.returncode, gone.stdout) == (0, "Nothing is left of 'zeta'.\n")
    assert run(shop, "audit", "verify").returncode == 0


def test_dry_run_does_nothing(shop: Path) -> None:
    """With --dry-run the steps are printed, and no tenant is there afterwards."""
    planned = data(shop, "tenant", "create", "tried", "--dry-run")
    assert {"name": "db", "kind": "sqlite"}.items() <= planned[1].items()
    assert run(shop, "tenant", "show", "tried").returncode == 4


def test_import_names_bad_rows(shop: Path) -> None:
    """An import makes the good rows, names each bad one with its line, and ends with 1."""
    (shop / "list.csv").write_text("slug,name\nione,One\nB@d,Two\nione,Again\n,Ünïcode\n")
    done = run(shop, "tenant", "import", "list.csv")
    assert done.returncode == 1
    assert "line 3: 'B@d' is no slug" in done.stdout
    assert "line 4: 'ione' is" in done.stdout
    assert "2 of 4 done, 2 failed." in done.stdout
    assert {row["slug"] for row in data(shop, "tenant", "list")} >= {"ione", "unicode"}


def test_destroy_asks_for_the_slug(shop: Path) -> None:
    """On a terminal `destroy` wants the slug typed; another word changes nothing."""
    assert run(shop, "tenant", "create", "typed").returncode == 0
    assert typed_at(shop, "wrong\n", "tenant", "destroy", "typed") == 3
    assert run(shop, "tenant", "show", "typed").returncode == 0
    assert typed_at(shop, "typed\n", "tenant", "destroy", "typed") == 0
    assert run(shop, "tenant", "show", "typed").returncode == 4


def typed_at(at: Path, text: str, *arguments: str) -> int:
    """Run a command on a terminal of its own, type something, and return its status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(at)
        os.execv(COMMAND, [COMMAND, *arguments])
    os.write(terminal, text.encode())
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # the terminal is closed: the command has ended
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- printing -----------------------------------------------------------------------------------------------------


def test_printing_is_safe() -> None:
    """What would drive the reader's terminal, or turn his reading round, is replaced."""
    assert safe("a\x1b[31mb\u202ec\td") == "a\ufffd[31mb\ufffdc\td"
    assert cell("\x1b]0;x\x07") == "\ufffd]0;x\ufffd"
    assert (cell(None), cell([]), cell(True), cell(1.50)) == ("–", "–", "yes", "1.5")


def test_what_does_not_show_is_not_printed() -> None:
    """A field kept out of a dataclass's repr, such as a key, is kept out of JSON, too."""
    from tenantry.model import Environment, Status, Tenant

    tenant = Tenant("1", "acme", "Acme", "site", None, Status.ACTIVE)
    shown = plain(Environment("2", "production", tenant, "home", sealed_key=b"x", secrets={"a": "b"}))
    assert shown["tenant"]["status"] == "active"
    assert {"sealed_key", "secrets"} & set(shown) == set()

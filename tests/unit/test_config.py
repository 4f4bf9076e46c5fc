"""Reading tenantry.toml: what overrides it, and every fault that is found in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from tenantry.config import Config, Fault, faults, load
from tenantry.errors import ConfigError, ConfigMissing

MINIMAL = '[blueprints.site.hostnames]\nproduction = "{slug}.{domain}"\n'


def write(root: Path, text: str = MINIMAL, env: str | None = None) -> Path:
    if env is not None:
        (root / ".env").write_text(env)
        (root / ".env").chmod(0o600)
    path = root / "tenantry.toml"
    path.write_text(text)
    return path


def only(root: Path, text: str, environ: dict[str, str] | None = None, **more: object) -> Fault:
    """The one fault of a text."""
    found = faults(write(root, text), environ or {}, **more)  # type: ignore[arg-type]
    assert len(found) == 1, found
    return found[0]


# --- what is read -------------------------------------------------------------------------------------------------


def test_short_forms_become_long(tmp_path: Path) -> None:
    """A host name and a value may be written as plain text; the configuration always holds the table."""
    config = load(write(tmp_path, MINIMAL + '[blueprints.site.values]\nhome = "start"\nsize = {default = 3}\n'), {})
    site = config.blueprints["site"]
    assert site.hostnames["production"].pattern == "{slug}.{domain}"
    assert (site.values["home"].default, site.values["size"].default) == ("start", 3)


def test_environment_over_dotenv_over_file(tmp_path: Path) -> None:
    """The environment wins over .env, and .env over the file."""
    text = '[platform]\nname = "file"\ndomain = "file.example"\ndata = "file"\n' + MINIMAL
    env = "TENANTRY_PLATFORM__DOMAIN=dotenv.example\nTENANTRY_PLATFORM__DATA=dotenv\n"
    config = load(write(tmp_path, text, env), {"TENANTRY_PLATFORM__DATA": "environment"})
    assert (config.platform.name, config.platform.domain) == ("file", "dotenv.example")
    assert config.data == tmp_path.resolve() / "environment"


def test_settings_of_every_type_from_the_environment(tmp_path: Path) -> None:
    """Numbers, durations, truth values, arrays in TOML or JSON, tables, and named tables can be variables."""
    environ = {
        "TENANTRY_WORKER__CONCURRENCY": "8",
        "TENANTRY_WORKER__DEAD_AFTER": "10s",
        "TENANTRY_RUNTIME": '{"open_databases": 7, "secure_cookies": false}',
        "TENANTRY_PLATFORM__RESERVED": "['shop', 'forum']",
        "TENANTRY_BLUEPRINTS__MY_SITE__TITLE": "A title",
        "TENANTRY_BLUEPRINTS__MY_SITE__HOSTNAMES__PRODUCTION": "{slug}.other.{domain}",
        "TENANTRY_BLUEPRINTS__MY_SITE__RESOURCES__DB__KIND": "sqlite",
    }
    config = load(write(tmp_path, MINIMAL.replace("site", "My-Site").replace("My-Site", "my-site")), environ)
    assert (config.worker.concurrency, config.worker.dead_after) == (8, 10.0)
    assert (config.runtime.open_databases, config.runtime.secure_cookies) == (7, False)
    assert config.platform.reserved == ("shop", "forum")
    site = config.blueprints["my-site"]
    assert (site.title, site.resources["db"].kind) == ("A title", "sqlite")
    assert site.hostnames["production"].pattern == "{slug}.other.{domain}"


def test_a_variable_may_hold_a_secret(tmp_path: Path) -> None:
    """What would be a fault in the file is no fault in a variable of the environment."""
    (tmp_path / "tenantry.toml").write_text(MINIMAL)
    address = "postgresql://tenantry:geheim@db.example/control"
    config = load(tmp_path / "tenantry.toml", {"TENANTRY_PLATFORM__CONTROL": address})
    assert config.control_url == address


def test_a_variable_keeps_a_secret_value_secret(tmp_path: Path) -> None:
    """A variable that gives a secret value its default does not make it public."""
    text = MINIMAL + '[blueprints.site.values]\npin = {default = "", secret = true}\n'
    config = load(write(tmp_path, text), {"TENANTRY_BLUEPRINTS__SITE__VALUES__PIN": '{env = "PIN"}', "PIN": "1234"})
    value = config.blueprints["site"].values["pin"]
    assert (value.default, value.secret) == ("1234", True)
    assert "1234" not in repr(config)


def test_blueprints_extend_one_another(tmp_path: Path) -> None:
    """A blueprint has what those it extends have, over any number of steps; what it says itself holds."""
    text = (
        MINIMAL
        + """
[blueprints.site]
environments = ["production", "dev"]
admin = "root"
[blueprints.site.resources]
db = {kind = "sqlite"}
media = {kind = "directory"}
[blueprints.middle]
extends = "site"
[blueprints.shop]
extends = "middle"
[blueprints.shop.resources]
db = {kind = "postgres"}
"""
    )
    shop = load(write(tmp_path, text), {}).blueprints["shop"]
    assert (shop.environments, shop.admin) == (("production", "dev"), "root")
    assert {name: spec.kind for name, spec in shop.resources.items()} == {"db": "postgres", "media": "directory"}
    assert shop.hostnames["production"].pattern == "{slug}.{domain}"


def test_control_database(tmp_path: Path) -> None:
    """The control database is a SQLite file below data, or where a secret says; its address is never shown."""
    assert load(write(tmp_path), {}).control_url == f"sqlite:///{tmp_path.resolve() / 'var' / 'control.sqlite'}"
    url = "postgresql://tenantry:hunter2@db/control"
    (tmp_path / "url").write_text(url + "\n")
    for reference in ('{env = "CONTROL"}', '{file = "url"}'):
        config = load(write(tmp_path, f"[platform]\ncontrol = {reference}\n" + MINIMAL), {"CONTROL": url})
        assert config.control_url == url
        assert "hunter2" not in repr(config) + str(config.model_dump()) + config.model_dump_json()


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Editors that put a byte order mark first do no harm."""
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert isinstance(load(path, {}), Config)


# --- faults -------------------------------------------------------------------------------------------------------

BLUEPRINT = "[blueprints.site.{}]\n"

CASES = {
    "an unknown setting": ('[platform]\ndomian = "x"\n' + MINIMAL, 2, "platform.domian", "no such setting", "'domain'"),
    "an unknown section": (MINIMAL + "[blueprnts.x]\n", 3, "blueprnts", "no such setting", "'blueprints'"),
    "a setting of the program's own": ('root = "/"\n' + MINIMAL, 1, "root", "no such setting", "Remove"),
    "no blueprint": ("[platform]\n", None, "blueprints", "missing", "Add"),
    "a wrong choice": ('[platform]\nmode = "single"\n' + MINIMAL, 2, "platform.mode", "'single-tenant'", ""),
    "a number out of range": ("[worker]\nconcurrency = 100\n" + MINIMAL, 2, "worker.concurrency", "64", ""),
    "a number that is text": ('[serve]\nport = "http"\n' + MINIMAL, 2, "serve.port", "valid integer", ""),
    "a duration without a unit": ('[worker]\nheartbeat = "5 x"\n' + MINIMAL, 2, "worker.heartbeat", '"5m"', ""),
    "a negative duration": ("[worker]\nheartbeat = -1\n" + MINIMAL, 2, "worker.heartbeat", "greater than 0", ""),
    "an array that is text": ('[platform]\nreserved = "x"\n' + MINIMAL, 2, "platform.reserved", "array", '["one"'),
    "a table that is text": ('platform = "x"\n' + MINIMAL, 1, "platform", "table", "[section]"),
    "a domain that is none": ('[platform]\ndomain = "a b"\n' + MINIMAL, 2, "platform.domain", "no host name", ""),
    "a domain with a port": ('[platform]\ndomain = "a.b:80"\n' + MINIMAL, 2, "platform.domain", "no port", ""),
    "a bad reserved slug": (
        '[platform]\nreserved = [\n  "ok",\n  "No",\n]\n' + MINIMAL,
        4,
        "platform.reserved[1]",
        "capital",
        "letters a-z",
    ),
    "a single tenant without its slug": (
        '[platform]\nmode = "single-tenant"\n' + MINIMAL,
        1,
        "platform.tenant",
        "needs it",
        'tenant = "slug"',
    ),
    "a single tenant's bad slug": ('[platform]\ntenant = "A"\n' + MINIMAL, 2, "platform.tenant", "capital", ""),
    "a path without slug": ('[routing]\npath = "/t/"\n' + MINIMAL, 2, "routing.path", "{slug}", "/t/{slug}/"),
    "a path without slash": ('[routing]\npath = "{slug}"\n' + MINIMAL, 2, "routing.path", "slash", ""),
    "a way named twice": ('[routing]\nby = ["host", "host"]\n' + MINIMAL, 2, "routing.by", "twice", ""),
    "an unknown way": ('[routing]\nby = ["hsot"]\n' + MINIMAL, 2, "routing.by[0]", "'host'", ""),
    "a worker dead too soon": ('[worker]\ndead_after = "600ms"\n' + MINIMAL, 2, "worker.dead_after", "dead", "three"),
    "an application that is none": ('[serve]\napp = "web app"\n' + MINIMAL, 2, "serve.app", "no application", ":"),
    "a proxy that is none": (
        '[serve]\ntrusted_proxies = ["x"]\n' + MINIMAL,
        2,
        "serve.trusted_proxies[0]",
        "no address",
        "10.0.0.0/8",
    ),
    "extending nothing": (
        MINIMAL + '[blueprints.shop]\nextends = "sit"\n',
        4,
        "blueprints.shop.extends",
        "no such blueprint",
        "'site'",
    ),
    "extending itself": (
        MINIMAL + '[blueprints.shop]\nextends = "shop"\n',
        4,
        "blueprints.shop.extends",
        "circle",
        "Remove",
    ),
    "an unknown environment": (
        MINIMAL + 'dev = "dev-{slug}.{domain}"\n',
        3,
        "blueprints.site.hostnames.dev",
        "no such environment",
        "production",
    ),
    "an unknown fact": (
        BLUEPRINT.format("hostnames") + 'production = "{slugg}.x"\n',
        2,
        "blueprints.site.hostnames.production",
        "{slugg}",
        "{slug}",
    ),
    "a fact no host name can hold": (
        BLUEPRINT.format("hostnames") + 'production = "{name}.{slug}.x"\n',
        2,
        "blueprints.site.hostnames.production",
        "{name}",
        "",
    ),
    "a host name all share": (
        BLUEPRINT.format("hostnames") + 'production = "app.{domain}"\n',
        2,
        "blueprints.site.hostnames.production",
        "same host name",
        "{client_id}",
    ),
    "a pattern that makes no host name": (
        BLUEPRINT.format("hostnames") + 'production = "{slug}..{domain}"\n',
        2,
        "blueprints.site.hostnames.production",
        "no host name",
        "",
    ),
    "two environments at one name": (
        '[blueprints.site]\nenvironments = ["a", "b"]\nhostnames = {a = "{slug}.x", b = "{SLUG}.x"}'.replace(
            "SLUG", "slug"
        ),
        3,
        "blueprints.site.hostnames.b",
        "'a'",
        "{environment}",
    ),
    "a value with an unknown fact": (
        MINIMAL + '[blueprints.site.values]\nhome = "{nmae}"\n',
        4,
        "blueprints.site.values.home",
        "{nmae}",
        "{name}",
    ),
    "a value that is an array": (
        MINIMAL + "[blueprints.site.values]\nhome = [1]\n",
        4,
        "blueprints.site.values.home",
        "string or integer or number or boolean",
        "",
    ),
    "an administrator with an unknown fact": (
        '[blueprints.site]\nadmin = "{user}"\n',
        2,
        "blueprints.site.admin",
        "{user}",
        "",
    ),
    "a name that is none": (
        MINIMAL + '[blueprints.site.resources."../x"]\nkind = "a"\n',
        3,
        "blueprints.site.resources.../x",
        "cannot be a name",
        "letters",
    ),
    "an environment named twice": (
        '[blueprints.site]\nenvironments = ["a", "a"]\n',
        2,
        "blueprints.site.environments",
        "twice",
        "",
    ),
    "two resources in one place": (
        MINIMAL
        + '[blueprints.site.resources]\na = {kind = "rendered", target = "x"}\nb = {kind = "file", target = "./x"}\n',
        5,
        "blueprints.site.resources.b",
        "'x'",
        "of its own",
    ),
    "a resource without kind": (
        MINIMAL + "[blueprints.site.resources]\na = {backup = true}\n",
        4,
        "blueprints.site.resources.a.kind",
        "missing",
        "",
    ),
    "a variable that is not set": (
        '[platform]\ncontrol = {env = "NOWHERE"}\n' + MINIMAL,
        2,
        "platform.control",
        "NOWHERE is not set",
        "",
    ),
    "a file that is not there": (
        '[platform]\ncontrol = {file = "nowhere"}\n' + MINIMAL,
        2,
        "platform.control",
        "nowhere cannot be read",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault(case: str, tmp_path: Path) -> None:
    """Each mistake alone is one fault, with its line, its key, what is wrong and what to do."""
    text, line, key, reason, remedy = CASES[case]
    fault = only(tmp_path, text)
    assert (fault.line, fault.key) == (line, key)
    assert reason in fault.reason
    assert remedy in fault.remedy
    assert fault.remedy
    assert not fault.warning
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "tenantry.toml", {})
    assert str(fault) in str(caught.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Unknown settings, wrong types, and what is wrong between settings are told together, in the file's order."""
    text = "\n".join(CASES[case][0].replace(MINIMAL, "") for case in ("an unknown setting", "a number out of range"))
    text += '[blueprints.site]\nextends = "nothing"\nextra = 1\n[blueprints.site.values]\nhome = "{nmae}"\n'
    found = faults(write(tmp_path, text), {})
    assert [fault.key for fault in found] == [
        "platform.domian",
        "worker.concurrency",
        "blueprints.site.extends",
        "blueprints.site.extra",
        "blueprints.site.values.home",
    ]
    with pytest.raises(ConfigError, match="has 5 faults") as caught:
        load(tmp_path / "tenantry.toml", {})
    assert all(str(fault) in str(caught.value) for fault in found)


def test_circle_of_three(tmp_path: Path) -> None:
    """A circle is told at each blueprint in it, and not at one that only leads there."""
    text = "".join(
        f'[blueprints.{name}]\nextends = "{base}"\n' for name, base in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"))
    )
    found = faults(write(tmp_path, text), {})
    assert [fault.key for fault in found] == [f"blueprints.{name}.extends" for name in "abc"]
    assert "a extends b extends c extends a" in found[0].reason


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("a = 1\nb == 2\n", 2, 4), ("a = 1\na = 2\n", 2, 6), ("a = [1,\n", 2, 1), ('a = "x\n', 1, 7), ("a\n", 1, 2)],
)
def test_what_is_no_toml(text: str, line: int, column: int, tmp_path: Path) -> None:
    """A mistake in the notation is told with its line and column."""
    fault = only(tmp_path, text)
    assert fault.line == line
    assert f"column {column}" in fault.reason
    with pytest.raises(ConfigError, match=rf"tenantry.toml:{line}:{column}: "):
        load(tmp_path / "tenantry.toml", {})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = 1 #" + b"x" * (1 << 20), b"a = " + b"[" * 5000])
def test_what_is_no_text(content: bytes, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, a file too large, and endless nesting are faults, not crashes."""
    path = write(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path, {})
    assert len(faults(path, {})) == 1


def test_no_file(tmp_path: Path) -> None:
    """Without a file there is an error of its own that names `tenantry init`."""
    with pytest.raises(ConfigMissing, match="tenantry init"):
        load(tmp_path / "tenantry.toml", {})


def test_unknown_variables(tmp_path: Path) -> None:
    """A TENANTRY_ variable that is no setting is a fault, told by its name and never with a secret's value."""
    write(tmp_path, env="TENANTRY_PLATFORM__DOMIAN=x.example\n")
    found = faults(
        tmp_path / "tenantry.toml",
        {
            "TENANTRY_PLATFROM__X": "1",
            "TENANTRY_SECRET_KEYS": "deadbeef",
            "TENANTRY_CONFIG": "x",
            "TENANTRY_ACTOR": "me",
            "TENANTRY_SERVER": "https://example.com",
            "TENANTRY_TOKEN": "t",
            "TENANTRY_SSO_SECRET": "s",
        },
    )
    assert {fault.source: fault.key for fault in found} == {
        "TENANTRY_PLATFORM__DOMIAN": "platform.domian",
        "TENANTRY_PLATFROM__X": "platfrom",
        "TENANTRY_SECRET_KEYS": "secret_keys",
    }
    assert "deadbeef" not in str(found)


def test_sign_up_without_mail(tmp_path: Path) -> None:
    """Sign-up whose addresses are proven by mail wants a server that sends it."""
    said = "a mail has to prove each address, and none can be sent"
    for more, expected in (
        ("", [said]),
        ("verify_mail = false\n", []),
        ('[mail]\nhost = "localhost"\n', []),
    ):
        path = write(tmp_path, f"{MINIMAL}\n[signup]\nopen = true\n{more}")
        assert [said for fault in faults(path, {}) if said in str(fault)] == expected


def test_a_wrong_variable_names_itself(tmp_path: Path) -> None:
    """A wrong value that a variable gave is told with the variable, not with a line of the file."""
    fault = only(tmp_path, "[serve]\nport = 80\n" + MINIMAL, {"TENANTRY_SERVE__PORT": "eighty"})
    assert (fault.source, fault.line, fault.value) == ("TENANTRY_SERVE__PORT", None, '"eighty"')


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[platform]\ncontrol = "postgresql://u:geheim@h/db"\n' + MINIMAL, "platform.control"),
        ('[routing.jwt]\njwks = "https://u:geheim@h/keys"\n' + MINIMAL, "routing.jwt.jwks"),
        (MINIMAL + '[blueprints.site.values]\nsmtp_password = "geheim"\n', "blueprints.site.values.smtp_password"),
        (
            MINIMAL + '[blueprints.site.values]\npin = {default = "geheim", secret = true}\n',
            "blueprints.site.values.pin.default",
        ),
        (
            MINIMAL + '[blueprints.site.resources]\ndb = {kind = "x", urls = ["redis://:geheim@h"]}\n',
            "blueprints.site.resources.db.urls[0]",
        ),
    ],
)
def test_secrets_do_not_stand_in_the_file(text: str, key: str, tmp_path: Path) -> None:
    """A secret written out is a fault that says where it belongs and does not show it."""
    fault = only(tmp_path, text)
    assert fault.key == key
    assert "{env" in fault.remedy
    assert "geheim" not in str(fault)


@pytest.mark.parametrize("url", ["sqlite:///var/x.sqlite", "postgresql:///control?host=/run/postgresql", "pg://u@h/x"])
def test_addresses_without_password_may_stand_there(url: str, tmp_path: Path) -> None:
    """An address that holds no password is no secret."""
    assert load(write(tmp_path, f'[platform]\ncontrol = "{url}"\n' + MINIMAL), {}).control_url == url


def test_options_of_resources(tmp_path: Path) -> None:
    """What a kind of resource takes is checked by the model given for it, at its own line."""

    class Sqlite(BaseModel):
        model_config = ConfigDict(extra="forbid")
        schema_: str = ""
        size: int = 1

    text = MINIMAL + '[blueprints.site.resources]\na = {kind = "sqlite", sise = 2}\nb = {kind = "sqlit"}\n'
    text += '[blueprints.site.resources.c]\nkind = "sqlite"\nsize = "big"\n'
    found = faults(write(tmp_path, text), {}, kinds={"sqlite": Sqlite})
    assert [(fault.line, fault.key.rpartition("resources.")[2]) for fault in found] == [
        (4, "a.sise"),
        (5, "b.kind"),
        (8, "c.size"),
    ]
    assert ["'size'" in found[0].remedy, "'sqlite'" in found[1].remedy] == [True, True]
    assert load(tmp_path / "tenantry.toml", {}).blueprints["site"].resources["c"].options == {"size": "big"}


def test_an_open_dotenv_is_a_warning(tmp_path: Path) -> None:
    """A .env that others may read is told, and does not stop the platform."""
    path = write(tmp_path, env="X=1\n")
    assert faults(path, {}) == []
    (tmp_path / ".env").chmod(0o644)
    (fault,) = faults(path, {})
    assert (fault.warning, fault.source, fault.value) == (True, ".env", "0644")
    assert "chmod 600" in fault.remedy
    assert isinstance(load(path, {}), Config)

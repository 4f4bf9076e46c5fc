"""`tenantry sso` with a SAML provider: entered from a file, shown, asked, turned into OpenID Connect and back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ground import PATIENCE, TENANTRY, Ground
from saml_providers import Forger


def run(ground: Ground, *arguments: str, status: int = 0) -> str:
    """A command, to its end; what it printed."""
    process = ground.command(*arguments)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == status, output
    return output


async def test_a_provider_is_entered_from_a_file(ground: Ground, tmp_path: Path) -> None:
    """The provider's name and what it has to know are shown, and no key; what is no metadata is refused in words."""
    file, idp = tmp_path / "provider.xml", Forger()
    file.write_text("\ufeff" + idp.metadata())
    run(ground, "org", "create", "Acme", "--mail", "it@acme.example")
    shown = run(ground, "sso", "set", "Acme", "--metadata", str(file), "--claim", "groups", "--role", "it=admin")
    assert idp.issuer in shown
    assert "/acs" in shown
    told = json.loads(run(ground, "sso", "show", "Acme", "--json"))
    assert (told["row"]["preset"], told["row"]["issuer"]) == ("saml", idp.issuer)
    assert told["entity_id"].endswith(f"/sso/{told['row']['organization_id']}/metadata")
    assert "PRIVATE KEY" not in json.dumps(told)
    assert f"{idp.issuer} says what it is, and has 1 key" in run(ground, "sso", "check", "Acme")
    assert "error[usage]" in run(ground, "sso", "set", "Acme", "--metadata", str(tmp_path / "none.xml"), status=2)
    file.write_text("<html>Sign in</html>")
    assert "error[sso.metadata]" in run(ground, "sso", "set", "Acme", "--metadata", str(file), status=3)
    both = ("--metadata", str(file), "--issuer", "https://login.acme.example")
    assert "error[sso.invalid]" in run(ground, "sso", "set", "Acme", *both, status=2)
    told = json.loads(run(ground, "sso", "show", "Acme", "--json"))
    assert told["row"]["issuer"] == idp.issuer


async def test_a_key_is_no_secret_of_another_protocol(ground: Ground, tmp_path: Path) -> None:
    """Turned into OpenID Connect, it wants a client secret; turned back, there is a new key of ours."""
    file = tmp_path / "provider.xml"
    file.write_text(Forger().metadata())
    run(ground, "org", "create", "Acme", "--mail", "it@acme.example")
    run(ground, "sso", "set", "Acme", "--metadata", str(file))
    before = ground.control("SELECT hex(secret) FROM sso")
    client = ("--issuer", "https://login.acme.example", "--client-id", "tenantry")
    assert "the client secret is missing" in run(ground, "sso", "set", "Acme", *client, status=2)
    assert ground.control("SELECT hex(secret) FROM sso") == before
    run(ground, "sso", "set", "Acme", *client, "--secret", "s")
    assert ground.control("SELECT metadata FROM sso") == [("",)]
    run(ground, "sso", "set", "Acme", "--metadata", str(file))
    assert ground.control("SELECT hex(secret) FROM sso") != before


async def test_before_a_provider_is_chosen_all_addresses_are_shown(ground: Ground) -> None:
    """Whoever enters the platform at a provider finds what it asks for: by OpenID Connect, and by SAML."""
    run(ground, "org", "create", "Acme", "--mail", "it@acme.example")
    shown = run(ground, "sso", "show", "Acme")
    for ending in ("callback", "signed-out", "back-channel", "front-channel", "metadata", "acs"):
        assert f"/{ending}\n" in shown


async def test_the_client_secret_can_come_from_the_environment(ground: Ground) -> None:
    """So it stands in no list of processes; it is no setting, and no command takes it for one."""
    run(ground, "org", "create", "Acme", "--mail", "it@acme.example")
    given = ("--issuer", "https://login.acme.example", "--client-id", "tenantry", "--config", str(ground.config))
    known = ground.environment() | {"TENANTRY_SSO_SECRET": "of the environment"}
    done = subprocess.run([TENANTRY, "sso", "set", "Acme", *given], env=known, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ground.control("SELECT secret IS NOT NULL FROM sso") == [(1,)]

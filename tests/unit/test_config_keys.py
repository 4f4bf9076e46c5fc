"""The platform's keys."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tenantry.config import secret_keys
from tenantry.errors import SecretKeyError

GOOD = secrets.token_hex(32)
OTHER = secrets.token_hex(32)


def test_from_the_environment_over_dotenv(tmp_path: Path) -> None:
    """The key comes from the environment, else from .env, and the one before it with it."""
    (tmp_path / ".env").write_text(f'TENANTRY_SECRET_KEY="{GOOD}"\n')
    assert secret_keys(tmp_path, {}) == (GOOD, None)
    assert secret_keys(tmp_path, {"TENANTRY_SECRET_KEY": OTHER, "TENANTRY_SECRET_KEY_PREVIOUS": GOOD.upper()}) == (
        OTHER,
        GOOD,
    )


def test_from_a_file(tmp_path: Path) -> None:
    """The key may stand in a file that a variable names."""
    (tmp_path / "key").write_text(GOOD + "\n")
    assert secret_keys(tmp_path, {"TENANTRY_SECRET_KEY_FILE": "key"}) == (GOOD, None)
    with pytest.raises(SecretKeyError, match="both set"):
        secret_keys(tmp_path, {"TENANTRY_SECRET_KEY_FILE": "key", "TENANTRY_SECRET_KEY": GOOD})
    with pytest.raises(SecretKeyError, match="nowhere cannot be read"):
        secret_keys(tmp_path, {"TENANTRY_SECRET_KEY_FILE": "nowhere"})


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "is not set"),
        ({"TENANTRY_SECRET_KEY": " "}, "is not set"),
        ({"TENANTRY_SECRET_KEY": "ab12"}, "has 4 hex digits where 64"),
        ({"TENANTRY_SECRET_KEY": GOOD + "a"}, "has 65 hex digits"),
        ({"TENANTRY_SECRET_KEY": "z" * 64}, "no hex digits"),
        ({"TENANTRY_SECRET_KEY": "0" * 64}, "one digit repeated"),
        ({"TENANTRY_SECRET_KEY": GOOD, "TENANTRY_SECRET_KEY_PREVIOUS": "f" * 64}, "PREVIOUS is one digit"),
    ],
)
def test_weak_keys_are_refused(environ: dict[str, str], reason: str, tmp_path: Path) -> None:
    """An absent, short or guessable key is refused with the reason and how to make one, and is never shown."""
    with pytest.raises(SecretKeyError, match=reason) as caught:
        secret_keys(tmp_path, environ)
    assert "secrets.token_hex(32)" in str(caught.value)
    assert not any(value.strip() and value in str(caught.value) for value in environ.values())

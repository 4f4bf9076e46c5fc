"""The vault opens what it sealed, for the same tenant and field, with the same key, and nothing else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import SealBroken, SecretKeyError
from tenantry.registry import Vault

KEY, OTHER = "0f" * 32, "f0" * 32
VAULT = Vault(KEY)
SEALED_KEY = VAULT.new_data_key("t1")
SEALED = VAULT.seal("t1", SEALED_KEY, "smtp_password", "correct horse")


@given(st.text(), st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1), st.text(min_size=1))
def test_what_is_sealed_opens_again(plain: str, tenant: str, field: str) -> None:
    """Any text, of any tenant and field, in any characters that can be encoded."""
    key = VAULT.new_data_key(tenant)
    assert VAULT.open(tenant, key, field, VAULT.seal(tenant, key, field, plain)) == plain


def test_the_same_text_is_never_sealed_alike() -> None:
    """Nonces are fresh: equal secrets cannot be told from their seals, and none holds its text."""
    seals = {VAULT.seal("t1", SEALED_KEY, "f", "correct horse") for _ in range(200)}
    assert len({seal[5:17] for seal in seals}) == 200
    assert not any(b"correct" in seal for seal in seals)
    assert len(VAULT.open_data_key("t1", SEALED_KEY)) == 32
    assert len({VAULT.open_data_key("t1", VAULT.new_data_key("t1")) for _ in range(20)}) == 20


@pytest.mark.parametrize(("tenant", "field"), [("t2", "smtp_password"), ("t1", "other"), ("t1/smtp_password", "")])
def test_a_value_opens_for_its_tenant_and_field_alone(tenant: str, field: str) -> None:
    """Copied to another row it is refused, though the key is the very same one."""
    data_key = VAULT.open_data_key("t1", SEALED_KEY)
    with pytest.raises(SealBroken) as caught:
        VAULT.open(tenant, VAULT.seal_data_key(tenant, data_key), field, SEALED)
    assert caught.value.details == {"tenant": tenant.partition("/")[0], "field": caught.value.details["field"]}
    assert "correct horse" not in str(caught.value)


def test_a_data_key_opens_for_its_tenant_alone() -> None:
    """One tenant's key in another tenant's row is refused, as is a secret in place of a key."""
    with pytest.raises(SealBroken):
        VAULT.open_data_key("t2", SEALED_KEY)
    with pytest.raises(SealBroken):
        VAULT.open_data_key("t1", SEALED)


@pytest.mark.parametrize("position", range(len(SEALED)))
def test_a_change_of_any_octet_is_refused(position: int) -> None:
    """Version, key id, nonce, text and tag: whichever bit is turned, nothing is opened."""
    for bit in range(8):
        changed = bytearray(SEALED)
        changed[position] ^= 1 << bit
        with pytest.raises(SealBroken):
            VAULT.open("t1", SEALED_KEY, "smtp_password", bytes(changed))


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_a_value_cut_short_is_refused(length: int) -> None:
    """However much is left of it, the fault is told as the same error."""
    with pytest.raises(SealBroken):
        VAULT.open("t1", SEALED_KEY, "smtp_password", SEALED[:length])
    with pytest.raises(SealBroken):
        VAULT.open("t1", SEALED_KEY, "smtp_password", SEALED + b"\0" * (length + 1))


def test_the_previous_key_opens_but_does_not_seal() -> None:
    """While keys are being changed both open; what is sealed anew needs the new one."""
    both = Vault(OTHER, KEY)
    assert both.open("t1", SEALED_KEY, "smtp_password", SEALED) == "correct horse"
    assert (VAULT.is_current(SEALED_KEY), both.is_current(SEALED_KEY)) == (True, False)
    moved = both.seal_data_key("t1", both.open_data_key("t1", SEALED_KEY))
    assert both.is_current(moved)
    assert Vault(OTHER).open("t1", moved, "smtp_password", SEALED) == "correct horse"
    for vault, key in ((VAULT, moved), (Vault(OTHER), SEALED_KEY), (Vault(KEY, "ab" * 32), moved)):
        with pytest.raises(SealBroken):
            vault.open_data_key("t1", key)


def test_the_key_id_tells_keys_apart_and_not_what_they_are() -> None:
    """Four octets that are no part of the key."""
    ids = {key: Vault(key).new_check()[1:5] for key in (KEY, OTHER, "ab" * 32)}
    assert len(set(ids.values())) == 3
    for (key, _), (_, identity) in itertools.product(ids.items(), ids.items()):
        assert identity not in bytes.fromhex(key)


def test_the_check_knows_its_own_keys() -> None:
    """A registry begun with another key is refused, and the error shows no key."""
    check = VAULT.new_check()
    VAULT.check(check)
    Vault(OTHER, KEY).check(check)
    for sealed in (Vault(OTHER).new_check(), SEALED_KEY, b"", check[:-1]):
        with pytest.raises(SecretKeyError) as caught:
            VAULT.check(sealed)
        assert KEY not in str(caught.value)


@given(st.text(max_size=80), st.text(max_size=80))
def test_the_seal_of_the_head_covers_its_content(content: str, other: str) -> None:
    """Only one of the vault's keys makes it, and only for this content."""
    seal = VAULT.sign_head(content)
    assert VAULT.verify_head(content, seal)
    assert Vault(OTHER, KEY).verify_head(content, seal)
    assert not Vault(OTHER).verify_head(content, seal)
    assert VAULT.verify_head(other, seal) is (other == content)


def test_no_key_is_shown() -> None:
    """Neither by the vault's text nor by what is inside the errors it raises."""
    for shown in (repr(VAULT), str(VAULT), f"{VAULT}", repr([VAULT])):
        assert shown.strip("[]") == "Vault(…)"
    with pytest.raises(SealBroken) as caught:
        VAULT.open("t1", SEALED_KEY, "other", SEALED)
    assert KEY not in repr(caught.value.__dict__)

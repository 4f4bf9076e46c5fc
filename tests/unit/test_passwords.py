"""What a password costs whoever guesses it."""

from __future__ import annotations

import subprocess
import sys


def test_passwords_are_hashed_at_the_price_of_the_rfc() -> None:
    """Argon2id with 64 MiB, three passes and four lanes (RFC 9106 section 4); these tests alone hash for less."""
    code = "from tenantry.credentials import hash_chosen; print(hash_chosen('correct horse'), hash_chosen('short'))"
    stored = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert len(stored.split()) == 1  # a short one is not hashed at all

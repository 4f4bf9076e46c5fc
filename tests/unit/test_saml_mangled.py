"""A signed answer that somebody changed at random says what it said, or is refused: never anything else."""

from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from lxml import etree

from saml_providers import NAMES, Forger, posted
from tenantry.identity.sso.assertions import read
from tenantry.identity.sso.entities import Entity
from tenantry.sso_refusals import SsoRefused

TOLD = {
    "id": "_asked",
    "acs": "https://platform.example/sso/1/acs",
    "entity": "https://platform.example/sso/1/metadata",
}
IDP = Forger()
KNOWN = Entity.of(IDP.metadata().encode())
RIGHT = {whole: etree.tostring(IDP.signed(TOLD, whole=whole)) for whole in (False, True)}
SAID = {whole: read(posted(RIGHT[whole]), KNOWN, TOLD["entity"], TOLD["acs"]) for whole in (False, True)}
EVIL = b"ceo@acme.example"


def says_the_same(content: bytes, whole: bool) -> None:
    """Or is refused; whatever else is raised is a fault."""
    try:
        found = read(posted(content), KNOWN, TOLD["entity"], TOLD["acs"])
    except SsoRefused:
        return
    assert found == SAID[whole]


@pytest.mark.parametrize("whole", [False, True], ids=["assertion", "response"])
@profile(max_examples=300)
@given(st.data())
def test_bytes_that_are_changed(whole: bool, data: st.DataObject) -> None:
    """Cut out, doubled, or put in anywhere."""
    content = RIGHT[whole]
    begins = data.draw(st.integers(0, len(content)))
    ends = data.draw(st.integers(begins, min(len(content), begins + 400)))
    put = data.draw(st.one_of(st.binary(max_size=20), st.just(content[begins:ends] * 2), st.just(EVIL)))
    says_the_same(content[:begins] + put + content[ends:], whole)


@pytest.mark.parametrize("whole", [False, True], ids=["assertion", "response"])
@profile(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_elements_that_are_moved(whole: bool, chance: random.Random) -> None:
    """Copied, moved, renamed or rewritten anywhere in the tree, as one wraps signatures; ids with them."""
    root = etree.fromstring(RIGHT[whole])
    for _ in range(chance.randint(1, 4)):
        elements = list(root.iter())
        one, other = chance.choice(elements), chance.choice(elements)
        if chance.random() < 0.5:
            one = copy.deepcopy(one)
            for text in one.iter(f"{{{NAMES['a']}}}AttributeValue", f"{{{NAMES['a']}}}NameID"):
                text.text = EVIL.decode()
            if chance.random() < 0.5 and one.get("ID"):
                one.set("ID", "_evil")
        if other is not root and one not in other.iterancestors() and one is not other and one is not root:
            chance.choice([other.append, other.addnext, other.addprevious])(one)
    says_the_same(etree.tostring(root), whole)

"""What is refused of a SAML provider: answers made for the purpose, wrapped signatures, and what XML can do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree
from signxml import XMLSigner
from signxml.algorithms import DigestAlgorithm, SignatureMethod

from providers import Names, names
from saml_providers import NAMES, Forger, asked, new_key, posted
from sso_world import World, query_of, world
from tenantry.sso_refusals import ProviderWrong, SsoInvalid, SsoRefused

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
P, A, DS = (f"{{{NAMES[prefix]}}}" for prefix in ("p", "a", "ds"))


@dataclass
class Forged:
    """Two organizations whose providers say anything."""

    world: World
    acme: Forger
    umbrella: Forger
    ids: dict[str, str]

    async def begun(self, slug: str = "acme") -> tuple[httpx.AsyncClient, dict[str, str]]:
        """A browser at the provider, and what the platform asks there."""
        browser = await self.world.browser()
        return browser, asked(await self.world.begin(browser, slug))

    async def post(
        self, browser: httpx.AsyncClient, told: dict[str, str], answer: etree._Element | bytes | str, **fields: str
    ) -> httpx.Response:
        """Post an answer, and go on to where the browser's cookie comes along."""
        given = answer if isinstance(answer, str) else posted(answer)
        data = {"SAMLResponse": given, "RelayState": told["state"], **fields}
        answered = await browser.post(told["acs"], data=data)
        return await browser.get(answered.headers["location"]) if answered.status_code == 303 else answered

    async def back(self, make: Callable[[Forger, dict[str, str]], etree._Element | bytes | str]) -> httpx.Response:
        """What the platform answers when the provider answers this."""
        browser, told = await self.begun()
        return await self.post(browser, told, make(self.acme, told))


@pytest.fixture(scope="module")
def known() -> Iterator[Names]:
    """A name server."""
    with names() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forged(tmp_path_factory: pytest.TempPathFactory, known: Names) -> AsyncIterator[Forged]:
    """The platform with both."""
    async with world(tmp_path_factory.mktemp("saml"), known) as made:
        await made.create("acme", "umbrella")
        ids = {
            name: await made.organization(name.title(), name, domain=f"{name}.example") for name in ("acme", "umbrella")
        }
        acme, umbrella = Forger(), Forger("https://idp.umbrella.example/entity")
        for name, provider in (("acme", acme), ("umbrella", umbrella)):
            await made.platform.sso.set(ids[name], metadata=provider.metadata())
            await made.knows(name, True)
        yield Forged(made, acme, umbrella, ids)


class Weak(XMLSigner):
    """Signs by SHA-1, too."""

    def check_deprecated_methods(self) -> None:
        pass


@pytest.mark.parametrize("whole", [False, True], ids=["assertion", "response"])
async def test_a_right_answer_is_taken(forged: Forged, whole: bool) -> None:
    """So that what is refused below is refused for what is wrong with it; the certificate's own dates do not count."""
    answer = await forged.back(lambda idp, told: idp.signed(told, whole=whole))
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith(forged.world.at("acme", "/.tenantry/sso/finish?"))


@pytest.mark.parametrize("method", ["RSA_SHA384", "RSA_SHA512", "SHA256_RSA_MGF1", "SHA512_RSA_MGF1", "ECDSA_SHA256"])
async def test_sound_signatures_are_taken(forged: Forged, method: str) -> None:
    """RSA by PKCS #1 and PSS, and ECDSA."""
    curve = ec.generate_private_key(ec.SECP256R1())
    idp = Forger(forged.acme.issuer, forged.acme.key, [curve])
    await forged.world.platform.sso.set(forged.ids["acme"], metadata=idp.metadata())
    browser, told = await forged.begun()
    key = curve if method.startswith("ECDSA") else idp.key
    signed = idp.sign(idp.response(told), key, SignatureMethod[method])
    assert (await forged.post(browser, told, signed)).status_code == 303


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("sso.issuer", {"issuer": "https://idp.umbrella.example/entity"}),
        ("sso.issuer", {"issuer": "https://idp.umbrella.example/entity", "outer": "https://idp.acme.example/entity"}),
        ("sso.issuer", {"outer": "https://idp.umbrella.example/entity"}),
        ("sso.audience", {"audience": "https://another.example/metadata"}),
        ("sso.audience", {"audience": None}),
        ("sso.recipient", {"recipient": "https://another.example/acs"}),
        ("sso.recipient", {"recipient": None}),
        ("sso.recipient", {"destination": "https://another.example/acs"}),
        ("sso.expired", {"ends": NOW - HOUR}),
        ("sso.expired", {"brought": NOW - HOUR}),
        ("sso.expired", {"session": NOW - HOUR}),
        ("sso.too_early", {"begins": NOW + HOUR}),
        ("sso.too_early", {"issued": NOW + HOUR}),
        ("sso.answer", {"brought": None}),
        ("sso.answer", {"brought": "tomorrow"}),
        ("sso.answer", {"answers": "_another"}),
        ("sso.answer", {"version": "1.1"}),
        ("sso.answer", {"statement": False}),
        ("sso.answer", {"confirmation": "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"}),
        ("sso.answer", {"conditions": "<a:Condition/>"}),
        ("sso.nonce", {"request": "_another", "answers": "_another"}),
        ("sso.claim", {"name": ""}),
        ("sso.claim", {"name": "x" * 256}),
        ("sso.claim", {"format": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"}),
        ("sso.claim", {"mail": ""}),
        ("sso.claim", {"mail": "no address"}),
        ("sso.mail_foreign", {"mail": "eva@umbrella.example"}),
        ("sso.mail_foreign", {"mail": "eva@sub.acme.example"}),
        ("sso.mail_foreign", {"mail": "eva@acme.example.evil.example"}),
        (
            "sso.provider_refused",
            {
                "status": '<p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Responder"><p:StatusCode '
                'Value="urn:oasis:names:tc:SAML:2.0:status:AuthnFailed"/></p:StatusCode>'
            },
        ),
    ],
)
async def test_a_wrong_answer_is_refused(forged: Forged, code: str, changes: dict[str, Any]) -> None:
    """Each by its own name, and nobody is made; what the assertion does not hold is signed with the whole answer."""
    before = len(await forged.world.users("acme"))
    whole = bool({"outer", "destination", "answers", "status"} & set(changes))
    answer = await forged.back(lambda idp, told: idp.signed(told, whole=whole, **changes))
    assert answer.status_code == 403, answer.text
    assert f"({code})" in answer.text
    assert len(await forged.world.users("acme")) == before


def _stripped(idp: Forger, told: dict[str, str]) -> etree._Element:
    root = idp.signed(told)
    for one in list(root.iter(f"{DS}Signature")):
        one.getparent().remove(one)
    return root


def _changed(idp: Forger, told: dict[str, str]) -> bytes:
    return etree.tostring(idp.signed(told)).replace(b"eva@acme.example", b"ceo@acme.example")


def _weak(idp: Forger, told: dict[str, str], **by: Any) -> etree._Element:
    return idp.sign(idp.response(told), signer=Weak, **by)


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("sso.signature", lambda idp, told: idp.response(told)),
        ("sso.signature", _stripped),
        ("sso.signature", _changed),
        ("sso.signature", lambda idp, told: idp.sign(idp.response(told), new_key())),
        ("sso.algorithm", lambda idp, told: _weak(idp, told, method=SignatureMethod.RSA_SHA1)),
        ("sso.algorithm", lambda idp, told: _weak(idp, told, digest=DigestAlgorithm.SHA1)),
        (
            "sso.signature",
            lambda idp, told: Forger(idp.issuer, idp.key).sign(
                idp.response(told), ec.generate_private_key(ec.SECP256R1())
            ),
        ),
    ],
    ids=["none", "stripped", "changed", "stranger", "sha1", "sha1-digest", "another-kind-of-key"],
)
async def test_a_wrong_signature_is_refused(
    forged: Forged, code: str, make: Callable[[Forger, dict[str, str]], etree._Element]
) -> None:
    """No signature, one of something else, another key's, and what is weak."""
    assert f"({code})" in (await forged.back(make)).text


async def test_a_shared_secret_signs_nothing(forged: Forged) -> None:
    """The provider's public key is no secret: HMAC is refused by its name."""

    def confused(idp: Forger, told: dict[str, str]) -> bytes:
        content = etree.tostring(idp.signed(told))
        return content.replace(SignatureMethod.RSA_SHA256.value.encode(), SignatureMethod.HMAC_SHA256.value.encode())

    assert "(sso.algorithm)" in (await forged.back(confused)).text


# --- signature wrapping -------------------------------------------------------------------------------------------


def _evil(assertion: etree._Element, identifier: str = "_evil") -> etree._Element:
    """The assertion as somebody else, unsigned."""
    made = copy.deepcopy(assertion)
    for signature in made.findall(f"{DS}Signature"):
        made.remove(signature)
    for text in made.iter(f"{A}AttributeValue"):
        text.text = "ceo@acme.example"
    made.set("ID", identifier)
    return made


def _beside(root: etree._Element, first: bool, identifier: str = "_evil") -> etree._Element:
    right = root.find(f"{A}Assertion")
    evil = _evil(right, identifier)
    (right.addprevious if first else right.addnext)(evil)
    return root


def _around(root: etree._Element) -> etree._Element:
    """The forged assertion holds the signed one."""
    right = root.find(f"{A}Assertion")
    evil = _evil(right)
    root.replace(right, evil)
    evil.append(right)
    return root


def _in_object(root: etree._Element) -> etree._Element:
    """The forged assertion carries the signature, and this the signed one."""
    right = root.find(f"{A}Assertion")
    evil, signature = _evil(right), right.find(f"{DS}Signature")
    root.replace(right, evil)
    evil.insert(1, signature)
    etree.SubElement(signature, f"{DS}Object").append(right)
    return root


def _in_extensions(root: etree._Element) -> etree._Element:
    right = root.find(f"{A}Assertion")
    evil = _evil(right)
    root.replace(right, evil)
    hidden = etree.Element(f"{P}Extensions")
    hidden.append(right)
    root.insert(1, hidden)
    return root


def _in_a_response(root: etree._Element) -> etree._Element:
    """A forged answer carries the signed one's signature, and in it the signed answer."""
    evil = copy.deepcopy(root)
    signature = evil.find(f"{DS}Signature")
    inner = copy.deepcopy(root)
    etree.SubElement(signature, f"{DS}Object").append(inner)
    evil.set("ID", "_outer")
    evil.replace(evil.find(f"{A}Assertion"), _evil(root.find(f"{A}Assertion")))
    return evil


def _swapped(root: etree._Element) -> etree._Element:
    """The signature is moved onto the forged assertion, and the signed one loses it."""
    right = root.find(f"{A}Assertion")
    evil, signature = _evil(right), right.find(f"{DS}Signature")
    right.remove(signature)
    evil.insert(1, signature)
    right.addprevious(evil)
    return root


def _two_signatures(root: etree._Element) -> etree._Element:
    signature = root.find(f"{A}Assertion/{DS}Signature")
    signature.addnext(copy.deepcopy(signature))
    return root


def _aimed_elsewhere(root: etree._Element) -> etree._Element:
    """The forged assertion under another name that libraries look for: the signed one is reached by its Id."""
    right = root.find(f"{A}Assertion")
    evil, signature = _evil(right, right.get("ID")), right.find(f"{DS}Signature")
    right.remove(signature)
    right.set("Id", right.attrib.pop("ID"))
    root.replace(right, evil)
    evil.insert(1, signature)
    etree.SubElement(signature, f"{DS}Object").append(right)
    return root


@pytest.mark.parametrize(
    ("wrap", "whole"),
    [
        (lambda root: _beside(root, True), False),
        (lambda root: _beside(root, False), False),
        (lambda root: _beside(root, True, root.find(f"{A}Assertion").get("ID")), False),
        (_around, False),
        (_in_object, False),
        (_in_extensions, False),
        (_swapped, False),
        (_two_signatures, False),
        (_aimed_elsewhere, False),
        (_in_a_response, True),
        (lambda root: _beside(root, True), True),
    ],
    ids=[
        "before",
        "behind",
        "same-id",
        "around",
        "object",
        "extensions",
        "swapped",
        "twice",
        "other-id",
        "response",
        "added",
    ],
)
async def test_a_wrapped_signature_is_refused(
    forged: Forged, wrap: Callable[[etree._Element], etree._Element], whole: bool
) -> None:
    """Wherever the signed part is put, and whatever stands in its place: nobody else comes in."""
    answer = await forged.back(lambda idp, told: wrap(idp.signed(told, whole=whole)))
    assert answer.status_code == 403, answer.text
    assert "(sso.answer)" in answer.text or "(sso.signature)" in answer.text
    assert all(user.login != "ceo@acme.example" for user in await forged.world.users("acme"))


# --- what XML can do ----------------------------------------------------------------------------------------------


def _entity(content: bytes, declared: bytes, used: bytes = b"&x;") -> bytes:
    return b"<!DOCTYPE r [" + declared + b"]>" + content.replace(b"eva@acme.example", used)


BOMB = b'<!ENTITY a "lollollol">' + b"".join(
    b'<!ENTITY %c "%b">' % (letter + 1, b"&%c;" % letter * 10) for letter in range(ord("a"), ord("x"))
)


@pytest.mark.parametrize(
    "make",
    [
        lambda xml: _entity(xml, b'<!ENTITY x SYSTEM "file:///etc/passwd">'),
        lambda xml: _entity(xml, b'<!ENTITY % x SYSTEM "http://127.0.0.1:1/x.dtd"> %x;', b"eva@acme.example"),
        lambda xml: _entity(xml, BOMB),
        lambda xml: b'<!DOCTYPE r SYSTEM "http://127.0.0.1:1/x.dtd">' + xml,
        lambda xml: ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE r []>' + xml.decode()).encode("utf-16"),
        lambda xml: b'<?xml version="1.0" encoding="UTF-7"?>' + b"+ADwAIQ-DOCTYPE r []+AD4-" + xml,
        lambda xml: b"<a>" * 5000 + b"</a>" * 5000,
        lambda xml: xml.replace(
            b"<a:Assertion ", b"<a:Assertion " + b" ".join(b"xmlns:x%d='x'" % n for n in range(60)) + b" "
        ),
        lambda xml: xml.replace(
            b"<a:Assertion ", b"<a:Assertion " + b" ".join(b"x%d='x'" % n for n in range(60)) + b" "
        ),
        lambda xml: xml[:-20],
        lambda xml: b"",
        lambda xml: b"\x00" * 100,
        lambda xml: b"<a/>",
    ],
    ids=[
        "file",
        "parameter",
        "laughs",
        "external",
        "utf16",
        "utf7",
        "deep",
        "prefixes",
        "attributes",
        "cut",
        "empty",
        "zeros",
        "other",
    ],
)
async def test_no_more_than_elements_is_read(forged: Forged, make: Callable[[bytes], bytes]) -> None:
    """No entities, no other file, no address, whatever the encoding; nor what is no answer at all."""
    answer = await forged.back(lambda idp, told: make(etree.tostring(idp.signed(told))))
    assert "(sso.answer)" in answer.text


async def test_a_comment_ends_no_name(forged: Forged) -> None:
    """The whole name counts, in the NameID and in the mail address: what a comment parts is not cut there."""
    browser, told = await forged.begun()
    changes = {"name": "boss@acme.example<!-- -->.evil.example", "mail": "boss@acme.example<!-- -->.evil.example"}
    answer = await forged.post(browser, told, forged.acme.signed(told, **changes))
    assert "(sso.mail_foreign)" in answer.text
    told = asked(await forged.world.begin(browser, "acme"))
    root = etree.tostring(forged.acme.signed(told, name="cut@acme.example.evil", mail="cut@acme.example"))
    commented = root.replace(b"cut@acme.example.evil", b"cut@acme.example<!-- -->.evil")
    answer = await forged.post(browser, told, commented)
    assert answer.status_code == 303, answer.text
    await browser.get(answer.headers["location"])
    found = [user.subject for user in await forged.world.users("acme") if user.login == "cut@acme.example"]
    assert found == ["cut@acme.example.evil"]


@pytest.mark.parametrize("posted", ["", "!!!", "A" * 500_000], ids=["nothing", "no-base64", "long"])
async def test_what_is_no_answer_is_refused(forged: Forged, posted: str) -> None:
    """Before anything of it is read."""
    assert "(sso.answer)" in (await forged.back(lambda idp, told: posted)).text


async def test_a_body_without_an_end_is_cut_off(forged: Forged) -> None:
    """More than a mebibyte is refused as it comes."""
    browser, told = await forged.begun()
    assert (await forged.post(browser, told, "A" * 2_000_000)).status_code == 413


# --- whose answer it is -------------------------------------------------------------------------------------------


async def test_an_answer_counts_once(forged: Forged) -> None:
    """A copy of it is refused, in the same browser, in another one, and by the answer's id in another sign-in."""
    browser, told = await forged.begun()
    answer = posted(forged.acme.signed(told))
    cookies = httpx.Cookies(browser.cookies)
    assert (await forged.post(browser, told, answer)).status_code == 303
    browser.cookies = cookies  # as somebody has them who copied the browser's
    assert "(sso.state)" in (await forged.post(browser, told, answer)).text
    other, next_told = await forged.begun()
    assert "(sso.replayed)" in (await forged.post(other, next_told, answer)).text


async def test_an_answer_belongs_to_the_browser_that_asked(forged: Forged) -> None:
    """Led into another browser it opens nothing there: neither with its own state nor with that browser's."""
    _, told = await forged.begun()
    victim, theirs = await forged.begun()
    assert "(sso.state)" in (await forged.post(victim, told, forged.acme.signed(told))).text
    _, told = await forged.begun()
    assert "(sso.nonce)" in (await forged.post(victim, theirs, forged.acme.signed(told))).text


async def test_what_nobody_asked_for_is_refused_and_told(forged: Forged) -> None:
    """Signing in from the provider's own page, with or without a place to go to."""
    browser, told = await forged.begun()
    for whole in (False, True):
        for state in ({}, {"RelayState": "https://evil.example/"}, {"RelayState": ""}):
            answer = forged.acme.signed(told, whole=whole, request=None, answers=None)
            page = await forged.post(browser, told, answer, **state)
            assert page.status_code == 403
            assert "signing in begins at the tenant" in page.text


async def test_another_organizations_provider_signs_nobody_in(forged: Forged) -> None:
    """Its own signature under its own name or under ours; and what it was asked, brought to us."""
    browser, told = await forged.begun()
    other = Forger(forged.acme.issuer, forged.umbrella.key)
    assert "(sso.signature)" in (await forged.post(browser, told, other.signed(told))).text
    browser, told = await forged.begun()
    assert "(sso.signature)" in (await forged.post(browser, told, forged.umbrella.signed(told))).text
    browser, theirs = await forged.begun("umbrella")
    answer = await forged.post(browser, {**theirs, "acs": told["acs"]}, forged.umbrella.signed(theirs))
    assert "(sso.state)" in answer.text
    answer = await forged.post(browser, theirs, forged.umbrella.signed(theirs, mail="eva@acme.example"))
    assert "(sso.state)" in answer.text or "(sso.mail_foreign)" in answer.text


async def test_encrypted_answers_are_told(forged: Forged) -> None:
    """They cannot be read, and the provider has to be told so."""

    def encrypted(idp: Forger, told: dict[str, str]) -> etree._Element:
        root = idp.response(told)
        root.replace(root.find(f"{A}Assertion"), etree.Element(f"{A}EncryptedAssertion"))
        return idp.sign(root)

    assert "(sso.encrypted)" in (await forged.back(encrypted)).text


async def test_a_fault_is_told_to_whom_it_belongs(forged: Forged) -> None:
    """What was wrong is sealed for one sign-in: made up, or carried into another one, it is refused."""
    browser, told = await forged.begun()
    data = {"SAMLResponse": posted(forged.acme.response(told)), "RelayState": told["state"]}
    onward = (await browser.post(told["acs"], data=data)).headers["location"]
    fault = query_of(onward)["fault"]
    other, theirs = await forged.begun()
    for given in (fault, "made-up"):
        where = httpx.URL(onward).copy_merge_params({"state": theirs["state"], "fault": given})
        assert "(sso.state)" in (await other.get(where)).text
        other, theirs = await forged.begun()
    assert "(sso.signature)" in (await browser.get(onward)).text


# --- metadata -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "changes"),
    [
        ("no certificate", {"keys": ""}),
        ("no SingleSignOnService", {"sign_on": "javascript:alert(1)"}),
        ("providers are: none", {"protocol": "urn:oasis:names:tc:SAML:1.1:protocol"}),
        ("ran out", {"more": 'validUntil="2020-01-01T00:00:00Z"'}),
        ("ran out", {"role": 'validUntil="2020-01-01T00:00:00Z"'}),
        ("document type", {"before": '<!DOCTYPE x [<!ENTITY a "b">]>'}),
        ("no XML", {"before": "<"}),
    ],
)
async def test_wrong_metadata_are_refused(forged: Forged, told: str, changes: dict[str, str]) -> None:
    """In words, before anything is saved."""
    with pytest.raises(ProviderWrong, match=told):
        await forged.world.platform.sso.set(forged.ids["acme"], metadata=forged.acme.metadata(**changes))


async def test_what_is_no_provider_is_not_saved(forged: Forged) -> None:
    """A short key, metadata without an end, two ways at once, none, an address inside, one that is none."""
    sso, organization = forged.world.platform.sso, forged.ids["acme"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns of such a key, too
        short = Forger(key=new_key(1024)).metadata()
    with pytest.raises(ProviderWrong, match="1024 bits"):
        await sso.set(organization, metadata=short)
    given: list[dict[str, Any]] = [
        {"metadata": "x" * 300_001},
        {"metadata": forged.acme.metadata(), "metadata_url": "https://idp.acme.example"},
        {"metadata": forged.acme.metadata(), "issuer": "https://idp.acme.example"},
        {},
        {"metadata_url": "file:///etc/passwd"},
        {"metadata_url": "https://user:pw@idp.acme.example"},
        {"metadata": forged.acme.metadata(issuer="x" * 501)},
    ]
    for one in given:
        with pytest.raises(SsoInvalid):
            await sso.set(organization, **one)
    with pytest.raises(SsoRefused):
        await sso.set(organization, metadata_url="https://169.254.169.254/latest/meta-data")


async def test_metadata_of_several_providers_are_refused(forged: Forged) -> None:
    """Nobody guesses which is meant; they are named."""
    inner = forged.acme.metadata() + forged.umbrella.metadata()
    both = f'<m:EntitiesDescriptor xmlns:m="urn:oasis:names:tc:SAML:2.0:metadata">{inner}</m:EntitiesDescriptor>'
    with pytest.raises(ProviderWrong, match=r"idp\.acme\.example/entity, https://idp\.umbrella"):
        await forged.world.platform.sso.set(forged.ids["acme"], metadata=both)

"""XML of identity providers: read as a bare tree, and of what is signed the very bytes that were signed.

Nothing beside elements, attributes and text is read: no document type, so no entities and no other file; no comments
and no instructions, so that no text ends before its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tenantry.sso_refusals import AlgorithmRefused, AnswerWrong, SignatureWrong

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Element: TypeAlias = Any
"""An element of lxml, which has no types."""

NAMES: Final[Mapping[str, str]] = {
    "p": "urn:oasis:names:tc:SAML:2.0:protocol",
    "a": "urn:oasis:names:tc:SAML:2.0:assertion",
    "m": "urn:oasis:names:tc:SAML:2.0:metadata",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
}

METHODS: Final = ("RSA_SHA256", "RSA_SHA384", "RSA_SHA512", "SHA256_RSA_MGF1", "SHA384_RSA_MGF1", "SHA512_RSA_MGF1")
CURVES: Final = ("ECDSA_SHA256", "ECDSA_SHA384", "ECDSA_SHA512")
DIGESTS: Final = ("SHA256", "SHA384", "SHA512")
"""Signatures that are taken, by their names in signxml: nothing by SHA-1, nothing by a shared secret."""

PREFIXES: Final = 50
ATTRIBUTES: Final = 50
"""How many prefixes a document may declare, and how many attributes an element may have: canonical XML takes time by

the square of either.
"""

_PREFIX: Final = re.compile(r"xmlns:([^\s=]+)")
_DECLARED: Final = re.compile(r"<!(?!--|\[CDATA\[)")


def read(content: bytes) -> Element:
    """The tree. Raises `ValueError` in words."""
    from lxml import etree  # few processes read any

    text = content.decode("utf-8-sig")
    if _DECLARED.search(text):
        raise ValueError("it declares a document type or entities")
    if len(set(_PREFIX.findall(text))) > PREFIXES:
        raise ValueError(f"it declares more than {PREFIXES} prefixes")
    safe = {"resolve_entities": False, "load_dtd": False, "no_network": True, "huge_tree": False}
    parser = etree.XMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, **safe)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"it is no XML: {error}"[:200]) from error
    if any(len(one.attrib) > ATTRIBUTES for one in root.iter()):
        raise ValueError(f"one of its elements has more than {ATTRIBUTES} attributes")
    return root


def name(short: str) -> str:
    """The full name of an element, such as p:Response."""
    prefix, _, local = short.partition(":")
    return f"{{{NAMES[prefix]}}}{local}"


def all_of(element: Element, path: str) -> list[Element]:
    """The elements at a path."""
    return list(element.findall(path, NAMES))


def one(element: Element, path: str) -> Element:
    """The one element at a path. Raises `AnswerWrong`."""
    found = all_of(element, path)
    if len(found) != 1:
        raise AnswerWrong(reason=f"it has {len(found)} {path.rpartition(':')[2]}, not one")
    return found[0]


def text(element: Element) -> str:
    """All of its text, whatever stands in it."""
    return "".join(element.itertext()).strip()


def written(element: Element) -> bytes:
    """As text."""
    from lxml import etree

    content: bytes = etree.tostring(element, encoding="utf-8", xml_declaration=False, with_tail=False)
    return content


def signed(element: Element, certificates: Sequence[Certificate]) -> Element:
    """What one of these keys vouches for: the element, read once more from the bytes that were signed, and no others.

    The signature is a child of the element, and names it. Raises `AlgorithmRefused` or `SignatureWrong`.
    """
    from lxml import etree
    from signxml.exceptions import SignXMLException
    from signxml.verifier import XMLVerifier

    _refuse_weak(one(element, "ds:Signature"))
    reason = "there is no key in the provider's metadata"
    for certificate in certificates:
        try:
            found = XMLVerifier().verify(
                written(element), x509_cert=certificate, id_attribute="ID", expect_config=_expected(certificate)
            )
        except (SignXMLException, etree.LxmlError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = str(error)
            continue
        covered = found.signed_xml  # type: ignore[union-attr]  # one reference is expected
        if covered is None or covered.tag != element.tag or covered.get("ID") != element.get("ID"):
            raise SignatureWrong(reason="it signs something else")
        return covered
    raise SignatureWrong(reason=reason[:200])


def _expected(certificate: Certificate) -> Any:
    """What a signature has to be. A certificate that the provider's metadata name stands for its key alone, whatever

    it says of when it holds (SAML V2.0 Metadata Interoperability Profile, section 2.6.1).
    """
    from signxml.algorithms import DigestAlgorithm, SignatureMethod
    from signxml.verifier import SignatureConfiguration

    return SignatureConfiguration(
        location="./",
        signature_methods=frozenset(SignatureMethod[one] for one in (*METHODS, *CURVES)),
        digest_algorithms=frozenset(DigestAlgorithm[one] for one in DIGESTS),
        verification_time=certificate.not_valid_before_utc,
    )


def _refuse_weak(signature: Element) -> None:
    """Look at the algorithms first, so that one that is not taken is told by its name. Raises `AlgorithmRefused`."""
    from signxml.algorithms import DigestAlgorithm, SignatureMethod

    known = {
        "ds:SignedInfo/ds:SignatureMethod": {SignatureMethod[one].value for one in (*METHODS, *CURVES)},
        "ds:SignedInfo/ds:Reference/ds:DigestMethod": {DigestAlgorithm[one].value for one in DIGESTS},
    }
    for path, taken in known.items():
        for given in all_of(signature, path):
            algorithm = str(given.get("Algorithm"))
            if algorithm not in taken:
                raise AlgorithmRefused(
                    algorithm=algorithm.rpartition("#")[2][:50],
                    remedy="Let the provider sign by RSA or ECDSA with SHA-256 or longer.",
                )

"""SAML providers for tests: a real one (SimpleSAMLphp), and one that signs whatever is wanted."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import XMLSigner
from signxml.algorithms import DigestAlgorithm, SignatureConstructionMethod, SignatureMethod

from servers import free_port

HERE = Path(__file__).with_name("saml")
TOOLS = Path(__file__).parents[1] / ".tools" / "simplesamlphp"
PLACES = (Path("/usr/share/simplesamlphp"), TOOLS / "usr" / "share" / "simplesamlphp")

NAMES = {
    "p": "urn:oasis:names:tc:SAML:2.0:protocol",
    "a": "urn:oasis:names:tc:SAML:2.0:assertion",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
}
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def program() -> Path:
    """Where SimpleSAMLphp is: installed, or its package unpacked here, which needs no web server."""
    if shutil.which("php") is None:
        pytest.skip("php is not here: the real SAML provider cannot run (scripts/servers)")
    found = next((one for one in PLACES if one.is_dir()), None)
    if found is None:
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            pytest.skip("SimpleSAMLphp is not here, and there is no apt-get to fetch it with")
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "simplesamlphp"], cwd=TOOLS, check=True, capture_output=True)
        package = next(TOOLS.glob("simplesamlphp_*.deb"))
        subprocess.run(["dpkg", "-x", package, TOOLS], check=True, capture_output=True)
        package.unlink()
        found = PLACES[1]
    return found


def certified(key: Key) -> x509.Certificate:
    """A certificate of a key, which ran out long ago: providers' often have."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a provider")])
    begins, ends = datetime(2020, 1, 1, tzinfo=UTC), datetime(2022, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
    return built.sign(key, hashes.SHA256())


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key for signatures."""
    return rsa.generate_private_key(65537, bits)


@dataclass
class Provider:
    """The real one, at an address of this machine."""

    root: Path
    people: dict[str, dict[str, list[str]]]
    more: dict[str, Any] = field(default_factory=dict)  # how it signs and names people
    host: str = "localhost"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """What it keeps."""
        return self.root / f"saml-{self.port}"

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        return f"http://{self.host}:{self.port}/idp"

    @property
    def metadata(self) -> str:
        """Where its metadata are."""
        return f"http://{self.host}:{self.port}/saml2/idp/metadata.php"

    def start(self, platform: str) -> None:
        """Start it with the platform's metadata, and a key of its own."""
        for folder in (self.folder / "sessions", self.folder / "temp"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "platform.xml").write_text(platform)
        self.renew()
        told = {
            "home": f"http://{self.host}:{self.port}/",
            "issuer": self.issuer,
            "folder": str(self.folder),
            "people": self.people,
            "more": self.more,
        }
        settings = self.folder / "settings.json"
        settings.write_text(json.dumps(told))
        known = {"PATH": os.environ["PATH"], "SAML_SETTINGS": str(settings), "SIMPLESAMLPHP_CONFIG_DIR": str(HERE)}
        options = ["-d", "display_errors=0", "-d", f"error_log={self.folder}/php.log"]
        command = ["php", *options, "-S", f"{self.host}:{self.port}", "-t", str(program() / "www")]
        self.process = subprocess.Popen(command, env=known, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        told_first = self.process.stderr.readline()
        assert b"started" in told_first, told_first
        self.process.stderr.close()

    def renew(self) -> None:
        """Give it another key; it looks at the file at each request."""
        key = new_key()
        form = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (self.folder / "provider.key").write_bytes(pem)
        (self.folder / "provider.crt").write_bytes(certified(key).public_bytes(serialization.Encoding.PEM))

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Answer:
    """What a provider's page posts, and where."""

    action: str
    fields: dict[str, str]

    @property
    def xml(self) -> bytes:
        """The answer itself."""
        return base64.b64decode(self.fields["SAMLResponse"])


async def consent(browser: httpx.AsyncClient, where: str, login: str) -> Answer:
    """Go through the real provider's pages as somebody; what its last one posts."""
    answer = await browser.get(where)
    for _ in range(10):
        if answer.is_redirect:
            where = urljoin(str(answer.url), answer.headers["location"])
            answer = await browser.get(where)
            continue
        assert answer.status_code == 200, answer.text[:3000]
        fields = _fields(answer.text)
        if "SAMLResponse" in fields:
            return Answer(_action(answer), fields)
        given = {**fields, "username": login, "password": "any"}
        answer = await browser.post(_action(answer), data=given)
    raise AssertionError(answer.text[:3000])


def _action(answer: httpx.Response) -> str:
    found = re.search(r'<form[^>]*action="([^"]*)"', answer.text)
    assert found is not None, answer.text[:3000]
    return urljoin(str(answer.url), html.unescape(found[1]))


def _fields(page: str) -> dict[str, str]:
    tags = [tag for tag in re.findall(r"<input[^>]*>", page) if 'type="hidden"' in tag]
    named = [(re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)) for tag in tags]
    return {name[1]: html.unescape(value[1]) for name, value in named if name and value}


# --- one that signs anything --------------------------------------------------------------------------------------


def asked(where: str) -> dict[str, str]:
    """What the platform asks: the request's id, its RelayState, the ACS, and whom."""
    query = dict(httpx.QueryParams(urlsplit(where).query))
    request = etree.fromstring(zlib.decompress(base64.b64decode(query["SAMLRequest"]), -15))
    told = {"id": request.get("ID"), "acs": request.get("AssertionConsumerServiceURL"), "state": query["RelayState"]}
    return told | {"entity": request.find("a:Issuer", NAMES).text, "destination": request.get("Destination")}


@dataclass
class Forger:
    """A provider that does as it is told, with a key of its own."""

    issuer: str = "https://idp.acme.example/entity"
    key: Key = field(default_factory=new_key)
    keys: list[Key] = field(default_factory=list)  # more of them in its metadata

    def metadata(self, **changes: str) -> str:
        """What it says of itself, with changes."""
        keys = [certified(one) for one in (self.key, *self.keys)]
        texts = [base64.b64encode(one.public_bytes(serialization.Encoding.DER)).decode() for one in keys]
        described = "".join(
            f'<m:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{one}'
            "</ds:X509Certificate></ds:X509Data></ds:KeyInfo></m:KeyDescriptor>"
            for one in texts
        )
        told = {"issuer": self.issuer, "more": "", "role": "", "keys": described, "before": ""} | changes
        told.setdefault("protocol", NAMES["p"])
        told.setdefault("sign_on", "https://idp.acme.example/sso")
        return (
            '{before}<m:EntityDescriptor xmlns:m="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="{ds}"'
            ' entityID="{issuer}" {more}><m:IDPSSODescriptor protocolSupportEnumeration="{protocol}" {role}>{keys}'
            '<m:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="{sign_on}"/>'
            "</m:IDPSSODescriptor></m:EntityDescriptor>"
        ).format(ds=NAMES["ds"], **told)

    def response(self, told: Mapping[str, str], /, **changes: Any) -> etree._Element:
        """A right answer to what was asked, with changes; nothing of it is signed yet."""
        moment = datetime.now(UTC)
        right: dict[str, Any] = {
            "issuer": self.issuer,
            "outer": changes.get("issuer", self.issuer),
            "name": "eva",
            "format": PERSISTENT,
            "mail": "eva@acme.example",
            "request": told["id"],
            "answers": told["id"],
            "recipient": told["acs"],
            "destination": told["acs"],
            "audience": told["entity"],
            "issued": moment,
            "begins": moment - timedelta(minutes=1),
            "ends": moment + timedelta(minutes=5),
            "brought": moment + timedelta(minutes=5),
            "session": moment + timedelta(hours=8),
            "version": "2.0",
            "id": f"_{os.urandom(16).hex()}",
            "status": '<p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/>',
            "confirmation": BEARER,
            "attributes": {},
            "conditions": "",
            "statement": True,
        } | changes
        return etree.fromstring(_response(right))

    def sign(
        self,
        element: etree._Element,
        key: Key | None = None,
        method: SignatureMethod | None = None,
        digest: DigestAlgorithm = DigestAlgorithm.SHA256,
        signer: type[XMLSigner] = XMLSigner,
    ) -> etree._Element:
        """An element with its signature behind its issuer, where SAML wants it."""
        key = key or self.key
        usual = SignatureMethod.RSA_SHA256 if isinstance(key, rsa.RSAPrivateKey) else SignatureMethod.ECDSA_SHA256
        element.find("a:Issuer", NAMES).addnext(etree.Element(f"{{{NAMES['ds']}}}Signature", Id="placeholder"))
        made = signer(
            method=SignatureConstructionMethod.enveloped,
            signature_algorithm=method or usual,
            digest_algorithm=digest,
            c14n_algorithm="http://www.w3.org/2001/10/xml-exc-c14n#",
        )
        form = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        certificate = certified(key).public_bytes(serialization.Encoding.PEM).decode()
        return made.sign(element, key=pem, cert=certificate, reference_uri=f"#{element.get('ID')}", id_attribute="ID")

    def signed(self, told: Mapping[str, str], /, whole: bool = False, **changes: Any) -> etree._Element:
        """A right answer with changes, signed as a whole, or its assertion alone."""
        root = self.response(told, **changes)
        if whole:
            return self.sign(root)
        assertion = root.find("a:Assertion", NAMES)
        root.replace(assertion, self.sign(assertion))
        return root


def _response(told: Mapping[str, Any]) -> str:
    def attribute(name: str, value: Any) -> str:
        found = value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        return f' {name}="{found}"' if found is not None else ""

    values = {"mail": [told["mail"]] if told["mail"] else [], **told["attributes"]}
    attributes = "".join(
        f'<a:Attribute Name="{name}">'
        + "".join(f"<a:AttributeValue>{one}</a:AttributeValue>" for one in given)
        + "</a:Attribute>"
        for name, given in values.items()
    )
    data = attribute("InResponseTo", told["request"]) + attribute("Recipient", told["recipient"])
    audience = told["audience"]
    restricted = (
        f"<a:AudienceRestriction><a:Audience>{audience}</a:Audience></a:AudienceRestriction>" if audience else ""
    )
    password = "urn:oasis:names:tc:SAML:2.0:ac:classes:Password"
    statement = (
        f'<a:AuthnStatement AuthnInstant="2026-01-01T00:00:00Z" SessionIndex="s-1"'
        f"{attribute('SessionNotOnOrAfter', told['session'])}><a:AuthnContext><a:AuthnContextClassRef>{password}"
        "</a:AuthnContextClassRef></a:AuthnContext></a:AuthnStatement>"
        if told["statement"]
        else ""
    )
    return (
        f'<p:Response xmlns:p="{NAMES["p"]}" xmlns:a="{NAMES["a"]}" xmlns:ds="{NAMES["ds"]}"'
        f' ID="_r{os.urandom(8).hex()}" Version="2.0"'
        f"{attribute('IssueInstant', told['issued'])}{attribute('InResponseTo', told['answers'])}"
        f"{attribute('Destination', told['destination'])}><a:Issuer>{told['outer']}</a:Issuer>"
        f"<p:Status>{told['status']}</p:Status>"
        f'<a:Assertion ID="{told["id"]}" Version="{told["version"]}"{attribute("IssueInstant", told["issued"])}>'
        f"<a:Issuer>{told['issuer']}</a:Issuer>"
        f'<a:Subject><a:NameID Format="{told["format"]}">{told["name"]}</a:NameID>'
        f'<a:SubjectConfirmation Method="{told["confirmation"]}"><a:SubjectConfirmationData{data}'
        f"{attribute('NotOnOrAfter', told['brought'])}/></a:SubjectConfirmation></a:Subject>"
        f"<a:Conditions{attribute('NotBefore', told['begins'])}{attribute('NotOnOrAfter', told['ends'])}>"
        f"{restricted}{told['conditions']}</a:Conditions>{statement}"
        f"<a:AttributeStatement>{attributes}</a:AttributeStatement></a:Assertion></p:Response>"
    )


def posted(root: etree._Element | bytes) -> str:
    """An answer as it is posted."""
    return base64.b64encode(root if isinstance(root, bytes) else etree.tostring(root)).decode()

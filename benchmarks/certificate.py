"""A self-signed certificate for loopback, for every contestant that serves TLS."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import process


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the certificate, which clients trust as their CA, and its private key."""

    path: Path
    key_path: Path


def make(directory: Path) -> Certificate:
    """For 127.0.0.1, ECDSA on P-256, valid for two days. Raises process.Failed when openssl fails."""
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(made.key_path))
    process.run(["openssl", "req", "-x509", "-days", "2", *subject, *key, "-out", str(made.path)], timeout_s=30)
    return made

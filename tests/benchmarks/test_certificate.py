import ssl
from pathlib import Path

from cryptography import x509

from benchmarks import certificate


def test_a_client_that_trusts_the_certificate_completes_a_handshake_on_loopback(tmp_path: Path) -> None:
    made = certificate.make(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.path, made.key_path)
    client = ssl.create_default_context(cafile=str(made.path))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    done = [False, False]
    for _ in range(8):
        done = [_handshake_done(ours), _handshake_done(theirs)]
    assert all(done)


def test_every_certificate_has_a_new_key_and_serial_number(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, second = certificate.make(tmp_path), certificate.make(tmp_path / "again")
    serials = [x509.load_pem_x509_certificate(made.path.read_bytes()).serial_number for made in (first, second)]
    assert serials[0] != serials[1]
    assert first.key_path.read_bytes() != second.key_path.read_bytes()


def _handshake_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True

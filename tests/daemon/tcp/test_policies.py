"""Each setting arrives where connections obey it, and TLS is spoken as the settings say."""

import ssl
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from daemon.process.descriptors import Budget
from daemon.settings import Settings, load
from daemon.tcp import policies
from daemon.tcp.listener import DrainPolicy
from daemon.tcp.places import PlaceLimits
from protocol.constants import ALPN, Durability
from protocol.timers import TimerSettings
from tests.support.certificates import Certificate, make_certificate


def settings_of(**flags: str) -> Settings:
    return load(None, {}, {key.replace("__", "."): value for key, value in flags.items()})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_welcome_says_the_limits_that_are_enforced() -> None:
    policy = policies.server_policy(
        settings_of(
            limits__chunk_bytes_max="2048",
            limits__window_bytes="4096",
            limits__streams_max="5",
            limits__keepalive_s="11",
            limits__idle_timeout_s="33",
            limits__rate_window_s="44",
            limits__rate_min_bytes_per_s="55",
            limits__handshake_timeout_s="6",
            limits__connections_max="7",
            limits__connections_per_ip_max="8",
            limits__connections_per_tenant_max="9",
            limits__connections_per_device_max="10",
            limits__handshakes_max="11",
            limits__outgoing_bytes_max="65536",
            auth__grace_s="9",
            auth__tenant_default="plant",
            cleanup__stale_s="10",
        )
    )
    limits, session = policy.limits, policy.session
    assert (limits.chunk_bytes_max, limits.window_bytes, limits.streams_max) == (2048, 4096, 5)
    assert (session.chunk_bytes_max, session.window_bytes, session.streams_max) == (2048, 4096, 5)
    assert session.features == limits.features == policies.FEATURES
    assert limits.timers == TimerSettings(6, 11, 33, 55, 44)
    assert (session.keepalive_s, session.grace_s, session.expiry.stale_s, session.tenant_default) == (
        11,
        9,
        10,
        "plant",
    )
    assert policy.places == PlaceLimits(7, 8, 9, 10)
    assert policy.handshakes_max == 11
    assert (policy.outgoing_bytes_max, policy.handshake_timeout_s) == (65536, 6)


def test_connections_are_no_more_than_there_are_descriptors_for() -> None:
    policy = policies.server_policy(settings_of(limits__connections_per_device_max="10"))
    budget = Budget(limit=100, wanted=200, connections=50, handshakes=6, http=5, open_files=25)
    within = policies.within(policy, budget)
    assert (within.places.connections_max, within.handshakes_max) == (50, 6)
    assert within.places.connections_per_device_max == 10


@pytest.mark.parametrize(("text", "durability"), [("sync", Durability.SYNC), ("write", Durability.WRITE)])
def test_durability_is_named_as_it_is(text: str, durability: Durability) -> None:
    assert policies.server_policy(settings_of(commit__durability=text)).session.durability is durability


def test_a_proxy_is_trusted_only_where_one_is_expected() -> None:
    trusted = settings_of(listen__proxy_trusted="10.0.0.0/8")
    assert policies.server_policy(trusted).proxy_trusted == ()
    expected = settings_of(listen__proxy_trusted="10.0.0.0/8", listen__proxy_protocol="true")
    assert policies.server_policy(expected).proxy_trusted == (ip_network("10.0.0.0/8"),)


def test_drain() -> None:
    settings = settings_of(drain__timeout_s="1", drain__reconnect_ms_min="2", drain__reconnect_ms_max="3")
    assert policies.drain_policy(settings) == DrainPolicy(1, 2, 3)


class TestTls:
    def test_none_without_a_certificate(self) -> None:
        assert policies.tls_context(Settings()) is None

    def test_version_and_protocol_are_agreed_on(self, certificate: Certificate) -> None:
        context = policies.tls_context(
            settings_of(listen__tls_certificate=str(certificate.path), listen__tls_key=str(certificate.key_path))
        )
        assert context is not None
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        client = ssl.create_default_context(cafile=certificate.path)
        client.set_alpn_protocols([ALPN])
        assert shake_hands(client, context) == ALPN

    def test_a_certificate_that_is_missing_is_an_error(self, certificate: Certificate, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=f"the certificate {tmp_path / 'no'} cannot be used with the key "):
            policies.tls_context(
                settings_of(listen__tls_certificate=str(tmp_path / "no"), listen__tls_key=str(certificate.key_path))
            )

    def test_an_encrypted_key_is_refused_without_asking_for_its_password(
        self, certificate: Certificate, tmp_path: Path
    ) -> None:
        key = serialization.load_pem_private_key(certificate.key_path.read_bytes(), None)
        encrypted = tmp_path / "key.pem"
        encrypted.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"password"),
            )
        )
        with pytest.raises(OSError, match="encrypted: store it without a password"):
            policies.load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate.path, encrypted)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """The protocol that the two agree on, over memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname="127.0.0.1"),
        server.wrap_bio(up, down, server_side=True),
    ]
    left = list(ends)
    while left:
        for end in list(left):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(end)
    return ends[1].selected_alpn_protocol()

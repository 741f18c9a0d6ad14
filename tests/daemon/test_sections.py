"""The tables of settings: bounds of each key, and keys that must agree."""

import re
from operator import attrgetter

import pytest

from daemon.settings import FlagValue, Settings, SettingsInvalid, load


class TestBounds:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("listen.host", ""),
            ("listen.port", 65536),
            ("listen.backlog", 0),
            ("limits.chunk_bytes_max", 100),
            ("limits.handshake_timeout_s", 0),
            ("limits.idle_timeout_s", "inf"),
            ("limits.rate_min_bytes_per_s", -1),
            ("commit.cycle_ms", "nan"),
            ("storage.size_max_bytes", 2**63),
            ("cleanup.max_fraction", 0),
            ("cleanup.max_fraction", 1.5),
            ("cleanup.jitter", 2),
            ("cleanup.stale_s", 0),
            ("auth.leeway_s", 3600),
            ("auth.algorithms", "none"),
            ("auth.algorithms", "HS512"),
            ("auth.tenant_default", "../x"),
            ("auth.tenant_default", "a\n"),
            ("log.level", "loud"),
            ("drain.timeout_s", 0),
        ],
    )
    def test_values_out_of_bounds_are_refused(self, key: str, value: FlagValue) -> None:
        with pytest.raises(SettingsInvalid, match=re.escape(f"{key} (flag {key})")):
            load(None, {}, {key: value})

    @pytest.mark.parametrize("network", ["10.0.0.1/8", "nonsense", "10.0.0.0/33"])
    def test_an_invalid_network_is_refused(self, network: str) -> None:
        with pytest.raises(SettingsInvalid, match=re.escape("listen.proxy_trusted (flag")):
            load(None, {}, {"listen.proxy_trusted": network})


class TestRelations:
    @pytest.mark.parametrize(
        ("given", "key"),
        [
            ({"limits.window_bytes": 65536 + 255, "limits.chunk_bytes_max": 65536}, "limits.window_bytes"),
            ({"limits.chunk_bytes_max": 8 << 20, "limits.window_bytes": 4 << 20}, "limits.window_bytes"),
            ({"limits.receive_pool_bytes": 65536}, "limits.receive_pool_bytes"),
            ({"limits.keepalive_s": 91}, "limits.keepalive_s"),
            ({"limits.idle_timeout_s": 60}, "limits.keepalive_s"),
            ({"listen.tls_certificate": "a.pem"}, "listen.tls_key"),
            ({"listen.tls_key": "a.pem"}, "listen.tls_key"),
            ({"listen.proxy_protocol": True}, "listen.proxy_protocol"),
            ({"drain.reconnect_ms_min": 5000, "drain.reconnect_ms_max": 4000}, "drain.reconnect_ms_max"),
        ],
    )
    def test_keys_that_contradict_each_other_are_refused(self, given: dict[str, FlagValue], key: str) -> None:
        with pytest.raises(SettingsInvalid) as caught:
            load(None, {}, given)
        assert [problem.key for problem in caught.value.problems] == [key]

    @pytest.mark.parametrize(
        "given",
        [
            {"limits.window_bytes": (1 << 20) + 256, "limits.receive_pool_bytes": 1 << 20},
            {"listen.tls_certificate": "a.pem", "listen.tls_key": "b.pem"},
            {"listen.proxy_protocol": "yes", "listen.proxy_trusted": "127.0.0.0/8"},
            {"drain.reconnect_ms_min": 4000, "drain.reconnect_ms_max": 4000},
        ],
    )
    def test_keys_that_agree_are_accepted(self, given: dict[str, FlagValue]) -> None:
        settings = load(None, {}, given)
        assert all(attrgetter(key)(settings) != attrgetter(key)(Settings()) for key in given)

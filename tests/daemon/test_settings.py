"""Settings: three sources in order of precedence, bounds and relations, and messages an operator can act on."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from daemon.settings import FlagValue, Settings, SettingsInvalid, changes, keys, load, reloadable

EXAMPLE = Path(__file__).parents[2] / "systemd" / "uplinkd.example.toml"


def refusal(file: Path | None = None, environment: dict[str, str] | None = None, **flags: FlagValue) -> str:
    """The message for invalid settings. In flags, `__` stands for the dot."""
    with pytest.raises(SettingsInvalid) as caught:
        load(file, environment or {}, {key.replace("__", "."): value for key, value in flags.items()})
    return str(caught.value)


def flat(tables: dict[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            found.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            found[name] = value
    return found


def at(settings: Settings, key: str) -> object:
    value: object = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


class TestSources:
    def test_defaults_need_nothing(self) -> None:
        assert load(None, {}, {}) == Settings()

    def test_flags_override_the_environment_which_overrides_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text("[limits]\nstreams_max = 1\nranges_max = 2\nconnections_max = 3\n")
        settings = load(
            file,
            {"UPLINKD_LIMITS__RANGES_MAX": "20", "UPLINKD_LIMITS__CONNECTIONS_MAX": "30"},
            {"limits.connections_max": 300},
        )
        limits = settings.limits
        assert (limits.streams_max, limits.ranges_max, limits.connections_max) == (1, 20, 300)

    def test_only_the_environment_passed_in_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UPLINKD_LOG__LEVEL", "error")
        monkeypatch.setenv("LOG__LEVEL", "error")
        monkeypatch.setenv("LOG", '{"level": "error"}')
        assert load(None, {}, {}).log.level == "info"

    def test_other_variables_and_the_files_name_are_not_keys(self) -> None:
        assert load(None, {"PATH": "/bin", "UPLINKD_CONFIG": "/etc/uplinkd.toml"}, {}) == Settings()

    def test_top_level_keys_have_no_section(self) -> None:
        settings = load(None, {"UPLINKD_DATA_DIR": "/srv/uplinkd"}, {})
        assert settings.data_dir == Path("/srv/uplinkd")

    def test_lists_are_comma_separated_outside_the_file(self) -> None:
        settings = load(
            None,
            {"UPLINKD_LISTEN__PROXY_TRUSTED": "10.0.0.0/8, fd00::/8"},
            {"auth.public_keys": "a.pem,b.pem", "auth.algorithms": "ES256"},
        )
        assert [str(network) for network in settings.listen.proxy_trusted] == ["10.0.0.0/8", "fd00::/8"]
        assert settings.auth.public_keys == (Path("a.pem"), Path("b.pem"))
        assert settings.auth.algorithms == ("ES256",)

    def test_lists_are_lists_in_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text('[auth]\nrequired_claims = ["jti"]\n')
        assert load(file, {}, {}).auth.required_claims == ("jti",)

    def test_paths_default_to_the_data_directory(self) -> None:
        settings = load(None, {}, {"data_dir": "/srv/u"})
        assert settings.admin_socket_path == Path("/srv/u/admin.sock")
        assert settings.secret_path == Path("/srv/u/secret")

    def test_paths_can_be_set(self) -> None:
        settings = load(None, {}, {"admin_socket": "/run/a.sock", "auth.secret_file": "/etc/s"})
        assert (settings.admin_socket_path, settings.secret_path) == (Path("/run/a.sock"), Path("/etc/s"))

    def test_loaded_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Settings().limits.streams_max = 1  # type: ignore[misc]  # the assignment that must fail


class TestMessages:
    def test_each_invalid_key_is_named_with_origin_value_and_expectation(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text('[commit]\ndurability = "maybe"\n')
        message = refusal(file, {"UPLINKD_LISTEN__PORT": "70000"}, limits__streams_max="many")
        assert f"commit.durability (file {file}): 'maybe': should be 'sync' or 'write'" in message
        assert (
            "listen.port (environment UPLINKD_LISTEN__PORT): '70000': should be less than or equal to 65535" in message
        )
        assert "limits.streams_max (flag limits.streams_max): 'many': should be a valid integer" in message

    def test_an_unknown_key_is_refused_with_a_suggestion(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text("[limits]\nstream_max = 1\n")
        assert f"limits.stream_max (file {file}): unknown key; did you mean limits.streams_max?" in refusal(file)

    def test_an_unknown_key_without_a_similar_one_is_refused(self) -> None:
        assert "zzz (environment UPLINKD_ZZZ): unknown key; remove it" in refusal(None, {"UPLINKD_ZZZ": "1"})

    def test_a_section_cannot_be_a_value(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text('commit = "sync"\n')
        assert "is a section; set its keys: commit.durability, commit.cycle_bytes" in refusal(file)

    def test_a_key_cannot_be_a_table(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text("[limits.streams_max]\nx = 1\n")
        assert "limits.streams_max (file" in refusal(file)

    def test_unknown_and_invalid_keys_are_reported_together(self) -> None:
        message = refusal(None, {"UPLINKD_ZZZ": "1"}, listen__port=-1)
        assert "zzz" in message
        assert "listen.port" in message

    def test_the_error_also_holds_its_problems_as_values(self) -> None:
        with pytest.raises(SettingsInvalid) as caught:
            load(None, {}, {"listen.port": -1})
        (problem,) = caught.value.problems
        assert (problem.key, problem.origin) == ("listen.port", "flag listen.port")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        assert f"file {tmp_path / 'none.toml'}): cannot be read: No such file" in refusal(tmp_path / "none.toml")

    @pytest.mark.parametrize("content", [b"[limits\n", b"\xff\xfe"])
    def test_a_file_that_is_not_toml_is_named(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_bytes(content)
        assert f"file {file}): is not valid TOML" in refusal(file)


class TestReload:
    def test_keys_certificates_limits_and_log_level_are_reloadable(self) -> None:
        assert {"auth.jwks_file", "listen.tls_key", "limits.streams_max", "log.level"} <= reloadable()

    def test_settings_fixed_at_the_start_are_not_reloadable(self) -> None:
        fixed = {"data_dir", "listen.port", "limits.receive_pool_bytes", "commit.durability", "log.format"}
        assert not fixed & reloadable()

    def test_every_reloadable_key_exists(self) -> None:
        assert reloadable() <= set(keys())

    def test_changes_are_split_by_whether_a_reload_applies_them(self) -> None:
        old = Settings()
        new = load(None, {}, {"log.level": "debug", "limits.streams_max": 3, "listen.port": 1, "data_dir": "x"})
        assert changes(old, new) == (("limits.streams_max", "log.level"), ("data_dir", "listen.port"))

    def test_equal_settings_have_no_changes(self) -> None:
        assert changes(Settings(), load(None, {}, {})) == ((), ())


class TestExample:
    def uncommented(self) -> str:
        return re.sub(r"^#(?=[a-z_]+ = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)

    def test_it_is_valid_and_changes_nothing(self) -> None:
        assert load(EXAMPLE, {}, {}) == Settings()

    def test_it_lists_exactly_the_keys_in_order(self) -> None:
        assert tuple(flat(tomllib.loads(self.uncommented()))) == keys()

    def test_its_values_are_the_defaults(self, tmp_path: Path) -> None:
        file = tmp_path / "uplinkd.toml"
        file.write_text(self.uncommented(), encoding="utf-8")
        shown, default = load(file, {}, {}), Settings()
        differing = {key for key in keys() if at(shown, key) != at(default, key)}
        assert differing == {key for key in keys() if at(default, key) is None}

    def test_keys_without_a_default_say_so(self) -> None:
        text = EXAMPLE.read_text(encoding="utf-8")
        unset = [key for key in keys() if at(Settings(), key) is None]
        assert text.count("Unset by default") == len(unset)

    def test_every_key_is_explained(self) -> None:
        lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
        bare = [
            line
            for before, line in itertools.pairwise(lines)
            if re.match(r"#[a-z_]+ = ", line) and not before.startswith("#")
        ]
        assert bare == []

    def test_it_marks_exactly_the_reloadable_keys(self) -> None:
        marked: set[str] = set()
        section, whole, comment = "", False, ""
        for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
            if table := re.match(r"\[([a-z]+)\]", line):
                section, whole, comment = f"{table[1]}.", "[reload]" in comment, ""
            elif key := re.match(r"#([a-z_]+) = ", line):
                if ("[reload]" in comment or whole) and "Needs a restart" not in comment:
                    marked.add(section + key[1])
                comment = ""
            else:
                comment = comment + line if line else ""
        assert marked == reloadable()

"""What a reload changes: settings that apply now, and those that wait for a restart."""

from dataclasses import dataclass

from daemon.settings import Settings, changes

_TLS_KEYS = frozenset({"listen.tls_certificate", "listen.tls_key"})


@dataclass(frozen=True, slots=True)
class Takeover:
    """Keys that change now, keys that wait for a restart, and the settings from now on."""

    applied: tuple[str, ...]
    waiting: tuple[str, ...]
    settings: Settings

    def __str__(self) -> str:
        after = f"; after a restart: {', '.join(self.waiting)}" if self.waiting else ""
        return f"changed: {', '.join(self.applied) or 'nothing'}{after}"


def take_over(old: Settings, found: Settings, *, has_tls: bool) -> Takeover:
    """Compare the settings in force with those found.

    A setting that waits for a restart keeps its value everywhere: a device that is promised another durability than it
    gets would lose data. A listener cannot change between plain TCP and TLS; `has_tls` says which it speaks.
    """
    applied, waiting = map(list, changes(old, found))
    if has_tls is (found.listen.tls_certificate is None):
        waiting += [key for key in applied if key in _TLS_KEYS]
        applied = [key for key in applied if key not in _TLS_KEYS]
    values: dict[str, dict[str, object]] = {}
    for section, _, name in (key.partition(".") for key in applied):
        values.setdefault(section, {})[name] = getattr(getattr(found, section), name)
    sections = {section: getattr(old, section).model_copy(update=changed) for section, changed in values.items()}
    return Takeover(tuple(applied), tuple(waiting), old.model_copy(update=sections))

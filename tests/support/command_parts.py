"""Commands on a real catalog, with fakes for the daemon's other parts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from daemon.adapters.entropy import SystemEntropy
from daemon.adapters.threads import SystemThreads
from daemon.admin.commands import Commands
from daemon.catalog.records import CleanupReport
from daemon.catalog.sqlite.catalog import SqliteCatalog
from daemon.health import Problem
from daemon.identity.keys import symmetric_key
from daemon.identity.tokens import Policy, TokenIssuer, TokenVerifier
from daemon.policies import auth_policy
from daemon.settings import Settings
from daemon.storage.local.storage import LocalStorage
from daemon.upkeep.verify import Verifier
from tests.support.fake_machine import FakeClock
from tests.support.populated_store import keep

KEY = symmetric_key(b"k" * 32)
VERSION = "1.2.3"
REPORT = CleanupReport(
    dry_run=True,
    stale_deleted=1,
    stale_kept=2,
    retention_expired=3,
    rejected_deleted=4,
    tombstones_purged=5,
    orphans_quarantined=6,
    freed_bytes=7,
    stopped=None,
)


@dataclass(slots=True)
class FakeCleaner:
    """Reports REPORT, or fails; waits for `go_on`."""

    error: Exception | None = None
    asked: list[bool] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    async def once(self, dry_run: bool) -> CleanupReport:
        self.asked.append(dry_run)
        self.entered.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return REPORT


@dataclass(slots=True)
class FakeGate:
    """Counts how often it loaded the disabled devices."""

    loads: int = 0

    async def load(self) -> None:
        self.loads += 1


@dataclass(slots=True)
class FakeHealth:
    """Reports the problems that a test puts in."""

    found: list[Problem] = field(default_factory=list)

    async def problems(self) -> Sequence[Problem]:
        return self.found


@dataclass(slots=True)
class Parts:
    """The parts that commands use."""

    catalog: SqliteCatalog
    storage: LocalStorage
    settings: Settings
    issuer: TokenIssuer
    clock: FakeClock
    cleanup: FakeCleaner = field(default_factory=FakeCleaner)
    gate: FakeGate = field(default_factory=FakeGate)
    health: FakeHealth = field(default_factory=FakeHealth)
    cut: list[tuple[str, str]] = field(default_factory=list)

    @property
    def policy(self) -> Policy:
        return auth_policy(self.settings)

    @property
    def token_verifier(self) -> TokenVerifier:
        """Accepts the issued tokens."""
        return TokenVerifier(self.policy, [KEY])

    def commands(self, *, is_running: bool = True) -> Commands:
        def cut(tenant: str, device: str) -> None:
            self.cut.append((tenant, device))

        verifier = Verifier(self.catalog, self.storage.contents, SystemThreads(), self.clock)
        return Commands(self, verifier, self.clock, SystemEntropy(), cut if is_running else None, VERSION)


@asynccontextmanager
async def parts_in(root: Path) -> AsyncIterator[Parts]:
    """Parts on an empty directory."""
    settings = Settings(data_dir=root)
    async with keep(root) as keeping:
        issuer = TokenIssuer(auth_policy(settings), KEY)
        yield Parts(keeping.catalog, keeping.storage, settings, issuer, FakeClock())

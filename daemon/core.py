"""Stores, ingest, identity and upkeep, opened together on one data directory. The core has no network code.

The daemon is built on it. So is the command line when no daemon runs.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock, SystemClock
from daemon.adapters.entropy import Entropy, SystemEntropy
from daemon.adapters.files import FileSystem, SystemFiles
from daemon.adapters.threads import SystemThreads, Threads
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import State
from daemon.catalog.sqlite.catalog import open_catalog
from daemon.catalog.sqlite.lane import Watch
from daemon.health import Health
from daemon.identity.gate import Gate
from daemon.identity.keys import ensure_secret_file, load_keys, symmetric_key
from daemon.identity.tokens import TokenIssuer, TokenVerifier
from daemon.ingest.admission import Admission
from daemon.ingest.committer import Committer
from daemon.ingest.digester import Digester
from daemon.ingest.ends import Ends
from daemon.ingest.free_space import Disk
from daemon.ingest.live_uploads import LiveUploads
from daemon.ingest.uploads import Uploads
from daemon.policies import auth_policy, cleanup_policy, cycle_settings, upload_policy
from daemon.process.descriptors import OPEN_FILES_MAX
from daemon.settings import Settings
from daemon.storage.interface import Storage
from daemon.storage.local.storage import LocalStorage
from daemon.tasks import Tasks
from daemon.telemetry.metrics import Metrics
from daemon.upkeep.cleanup import Cleanup
from daemon.upkeep.cleanup_pass import Stores
from daemon.upkeep.recovery import Recovery
from daemon.upkeep.verify import Verifier

COUNT_INTERVAL_S = 5.0
"""How often uploads are counted: more often than the usual scrape."""


class DirectoryLocked(Exception):
    """Another process owns the data directory."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything outside the process."""

    clock: Clock
    entropy: Entropy
    files: FileSystem
    threads: Threads


def system_machine() -> Machine:
    """The machine the process runs on."""
    return Machine(SystemClock(), SystemEntropy(), SystemFiles(), SystemThreads())


@dataclass(slots=True, eq=False)
class Core:
    """The core's parts. A reload replaces `settings`."""

    settings: Settings
    machine: Machine
    log: BoundLogger
    metrics: Metrics
    catalog: Catalog
    storage: Storage
    committer: Committer
    digester: Digester
    disk: Disk
    admission: Admission
    live: LiveUploads
    ends: Ends
    uploads: Uploads
    cleanup: Cleanup
    recovery: Recovery
    file_verifier: Verifier
    gate: Gate
    verifier: TokenVerifier
    issuer: TokenIssuer
    tasks: Tasks
    health: Health
    counts: Mapping[State, int] = field(default_factory=dict)
    """Uploads in each state, as last read."""

    async def run(self) -> None:
        """Commit, hash, measure and clean up, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.committer.run(self.uploads))
            group.create_task(self.digester.run(self.uploads.digested, self.uploads.unreadable))
            group.create_task(self.disk.run())
            group.create_task(self.cleanup.run())
            group.create_task(self.recovery.run())
            group.create_task(self._watch_catalog())

    def reload(self, settings: Settings) -> None:
        """Apply new keys and limits. Raises KeysInvalid, and then changes nothing."""
        secret = ensure_secret_file(settings.secret_path, self.machine.entropy)
        keys = load_keys(secret, settings.auth.public_keys, settings.auth.jwks_file, settings.auth.algorithms)
        policy = auth_policy(settings)
        self.verifier.reload(policy, keys)
        self.issuer = TokenIssuer(policy, symmetric_key(secret))
        self.admission.policy = upload_policy(settings)
        self.settings = settings

    async def _watch_catalog(self) -> None:
        """Count uploads for the metrics, and load the devices that another process disabled."""
        revoked_s = 0.0
        while True:
            try:
                self.counts = await self.catalog.counts()
                if (now := self.machine.clock.monotonic_s()) - revoked_s >= self.settings.auth.revocation_s:
                    await self.gate.load()
                    revoked_s = now
            except CatalogFailed as error:
                self.log.warning("the catalog could not be read", error=str(error))
            await asyncio.sleep(COUNT_INTERVAL_S)


@asynccontextmanager
async def open_core(
    settings: Settings, machine: Machine, log: BoundLogger, open_files_max: int = OPEN_FILES_MAX
) -> AsyncIterator[Core]:
    """The core on the settings' data directory, which is made if it is missing and locked until the core closes.

    At most `open_files_max` files of uploads stay open between writes.

    Raises DirectoryLocked, CatalogNewer, CatalogFailed, KeysInvalid and OSError.
    """
    files = machine.files
    if files.create_directory(settings.data_dir):
        # Sync the parent as well: if a power cut loses the directory's own entry, everything in it is lost.
        files.sync_directory(settings.data_dir.absolute().parent)
    try:
        lock = files.lock(settings.data_dir / "lock")
    except BlockingIOError as error:
        raise DirectoryLocked(f"another uplinkd owns {settings.data_dir}: stop it, or use another data_dir") from error
    async with AsyncExitStack() as stack:
        stack.callback(files.close, lock)
        secret = ensure_secret_file(settings.secret_path, machine.entropy)
        keys = load_keys(secret, settings.auth.public_keys, settings.auth.jwks_file, settings.auth.algorithms)
        metrics = Metrics(machine.clock.wall_ms())
        watch = Watch(machine.clock, metrics.catalog_batch_duration.observe)
        catalog = await open_catalog(settings.data_dir / "catalog.sqlite", machine.threads, watch)
        stack.push_async_callback(catalog.close)
        verifier = TokenVerifier(auth_policy(settings), keys)
        core = _compose(settings, machine, log, metrics, catalog, secret, verifier, open_files_max)
        stack.push_async_callback(core.storage.close)
        stack.push_async_callback(core.digester.close)
        stack.push_async_callback(core.tasks.wait)
        await core.gate.load()
        await core.disk.measure()
        yield core


def _compose(
    settings: Settings,
    machine: Machine,
    log: BoundLogger,
    metrics: Metrics,
    catalog: Catalog,
    secret: bytes,
    verifier: TokenVerifier,
    open_files_max: int,
) -> Core:
    clock, entropy = machine.clock, machine.entropy
    is_durable = settings.commit.durability == "sync"
    storage = LocalStorage(
        settings.data_dir,
        machine.files,
        machine.threads,
        clock,
        open_files_max,
        is_durable,
        lambda error: log.warning("files are synced one by one: their file system's sync failed", error=str(error)),
    )
    committer = Committer(storage.staging, catalog, clock, metrics, cycle_settings(settings))
    digester = Digester(storage.contents, machine.threads)
    disk = Disk(storage, clock, log)
    admission = Admission(catalog, disk, clock, upload_policy(settings))
    tasks = Tasks(lambda error: log.error("unforeseen failure", exc_info=error))
    live = LiveUploads(storage.staging, digester)
    ends = Ends(
        catalog=catalog,
        contents=storage.contents,
        live=live,
        clock=clock,
        metrics=metrics,
        log=log,
        tasks=tasks,
    )
    uploads = Uploads(
        catalog=catalog,
        staging=storage.staging,
        committer=committer,
        digester=digester,
        admission=admission,
        live=live,
        ends=ends,
        clock=clock,
        entropy=entropy,
        metrics=metrics,
        log=log,
        tasks=tasks,
    )
    return Core(
        settings=settings,
        machine=machine,
        log=log,
        metrics=metrics,
        catalog=catalog,
        storage=storage,
        committer=committer,
        digester=digester,
        disk=disk,
        admission=admission,
        live=live,
        ends=ends,
        uploads=uploads,
        cleanup=Cleanup(
            stores=Stores(catalog, storage.contents, storage.inventory, live),
            clock=clock,
            entropy=entropy,
            metrics=metrics,
            log=log,
            policy=cleanup_policy(settings),
        ),
        recovery=Recovery(catalog, storage.contents, log),
        file_verifier=Verifier(catalog, storage.contents, machine.threads, clock),
        gate=Gate(verifier, catalog, clock),
        verifier=verifier,
        issuer=TokenIssuer(auth_policy(settings), symmetric_key(secret)),
        tasks=tasks,
        health=Health(catalog, disk, committer, admission, clock, settings.data_dir),
    )

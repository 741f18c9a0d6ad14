"""SHA-256 of uploads, computed on a thread of its own. PROTOCOL.md §14.

Bytes that come in order are hashed as they come, while they are in memory. Bytes that came earlier or out of order are
read back once they are durable. After each step it is another device's turn, and then another upload's of the same, so
that a large file does not hold up a small one, nor many files of one device those of others.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.adapters.threads import Report, Threads
from daemon.ingest.live_upload import LiveUpload, Piece
from daemon.shares import share_out
from daemon.storage.interface import Contents
from protocol.checksum import Buffer

STEP_BYTES = 4 * 1024 * 1024
"""Read and hashed in one step: some milliseconds, beside which handing it to the thread costs nothing."""

HASH_BYTES_PER_S = 500_000_000
"""A cautious guess at the speed, from which a device learns how long to wait."""


@dataclass(slots=True)
class _DigestJob:
    """`hashed_bytes` are hashed, or queued for the thread in `steps` steps."""

    upload: LiveUpload
    hasher: "hashlib._Hash"
    hashed_bytes: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class _DigestStep:
    job: _DigestJob
    pieces: Sequence[Buffer]
    done: Callable[[], None]


class Digester:
    """Hashes uploads. `run` must be awaited by an owner."""

    def __init__(self, contents: Contents, threads: Threads) -> None:
        self._contents = contents
        self._lane = threads.lane("sha256", _hash)
        self._jobs: OrderedDict[int, _DigestJob] = OrderedDict()
        self._due = asyncio.Event()

    def follow(self, upload: LiveUpload) -> None:
        """Hash the durable bytes of the upload that were not hashed as they came. Call it again when there are more."""
        job = self._jobs.get(upload.id)
        if job is None or job.upload is not upload:
            self._jobs[upload.id] = _DigestJob(upload, hashlib.sha256())
        self._due.set()

    def take(self, upload: LiveUpload, piece: Piece, done: Callable[[], None]) -> bool:
        """Hash bytes that have just come, if they are the next ones of an upload that is followed.

        Returns whether they are. If so, their memory must not change until `done` is called.
        """
        job = self._jobs.get(upload.id)
        if job is None or job.upload is not upload or job.hashed_bytes != piece.offset:
            return False
        self._put(job, piece.data, done)
        return True

    def forget(self, upload: LiveUpload) -> None:
        """Stop hashing the upload."""
        self._jobs.pop(upload.id, None)

    def remaining_s(self, upload: LiveUpload) -> float:
        """About how long the digest of the whole upload will take."""
        job = self._jobs.get(upload.id)
        return ((upload.size or 0) - (job.hashed_bytes if job else 0)) / HASH_BYTES_PER_S

    async def run(
        self, whole: Callable[[LiveUpload, bytes], None], failed: Callable[[LiveUpload, OSError], None]
    ) -> None:
        """Hash until cancelled. `whole` gets the digest of each upload once all of it is hashed."""
        while True:
            await self._due.wait()
            self._due.clear()
            jobs, others = share_out((job for job in self._jobs.values() if self._has_work(job)), _device_of, 1)
            if others:
                self._due.set()
            for job in jobs:
                if not self._is_current(job):
                    continue
                self._jobs.move_to_end(job.upload.id)
                try:
                    await self._step(job)
                except OSError as error:
                    if self._is_current(job):
                        del self._jobs[job.upload.id]
                        failed(job.upload, error)
                    continue
                if self._is_ready(job) and self._is_current(job):
                    del self._jobs[job.upload.id]
                    whole(job.upload, job.hasher.digest())

    async def close(self) -> None:
        """End the thread."""
        await self._lane.close()

    def _has_work(self, job: _DigestJob) -> bool:
        return job.upload.next_expected_byte > job.hashed_bytes or self._is_ready(job)

    def _is_current(self, job: _DigestJob) -> bool:
        """Whether the upload was neither forgotten nor given another job."""
        return self._jobs.get(job.upload.id) is job

    def _is_ready(self, job: _DigestJob) -> bool:
        """Whether to report the digest. A right one is reported at once, so that the cycle of the last bytes completes
        the upload. A wrong one waits until all bytes are durable, since they are kept for inspection.
        """
        upload = job.upload
        if upload.size != job.hashed_bytes or job.steps:
            return False
        return upload.next_expected_byte == upload.size or upload.sha256_expected == job.hasher.digest()

    async def _step(self, job: _DigestJob) -> None:
        count = min(job.upload.next_expected_byte - job.hashed_bytes, STEP_BYTES)
        if count <= 0:
            return
        reading = await self._contents.open(job.upload.id)
        try:
            data = await reading.read(job.hashed_bytes, count)
        finally:
            await reading.close()
        if len(data) < count:
            raise OSError(f"only {len(data)} of {count} bytes at {job.hashed_bytes} are stored")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(job, (data,), lambda: None if done.cancelled() else done.set_result(None))
        await done

    def _put(self, job: _DigestJob, pieces: Sequence[Buffer], done: Callable[[], None]) -> None:
        job.hashed_bytes += sum(map(len, pieces))
        job.steps += 1

        def hashed() -> None:
            job.steps -= 1
            done()
            self._due.set()

        self._lane.put(_DigestStep(job, pieces, hashed))


def _device_of(job: _DigestJob) -> tuple[str, str]:
    return job.upload.tenant, job.upload.device


def _hash(batch: list[_DigestStep]) -> Report:
    for step in batch:
        for piece in step.pieces:
            step.job.hasher.update(piece)
    return lambda: _report(batch)


def _report(batch: list[_DigestStep]) -> None:
    for step in batch:
        step.done()

"""One upload, over as many connections as it needs. PROTOCOL.md §6 to §9 and §14."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from device.backoff import Backoff
from device.digest import Digest
from device.exceptions import StreamOver
from device.link import Link
from device.pending import Pending
from device.report import ProgressListener, Sent, UploadProgress
from device.transfer_source import TransferSource
from protocol import frames
from protocol.constants import Action, Disposition, Feature, FrameType, UploadState
from protocol.errors import ErrorCode
from protocol.events import Acknowledged, Answered, Failed
from protocol.ranges import Span

COMPACT_SIZE_MAX = 2**32
"""The compact form's offsets are 32 bits wide."""

REPLACEMENTS_MAX = 5
"""Replacements in one call. Each may send the whole file again, and two senders of one name could go on for ever."""


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to send. `form` is used if the server takes it, else the 17-byte header that every server takes."""

    form: FrameType
    replace: bool = False


class Transfer:
    """Sends one source. `on_progressed` is called when an ACK makes more bytes durable, or FINISHED arrives."""

    def __init__(
        self,
        source: TransferSource,
        request: frames.Open,
        options: TransferOptions,
        on_progressed: Callable[[], None],
        on_progress: ProgressListener | None,
    ) -> None:
        self._source = source
        self._request = request
        self._options = options
        self._on_progressed = on_progressed
        self._on_progress = on_progress
        self._opened_before = False
        self._replacements = 0
        self._replacement_id: int | None = None
        self._missing_bytes: int | None = None
        self._durable_bytes = 0
        self._sent_bytes = 0
        self._resumes = 0
        self._pending = Pending(0, 0, ())
        self._opened: frames.Opened | None = None
        self._finished: frames.Finished | None = None
        self._failure: frames.Error | None = None
        self._verify_s: float | None = None
        self._finish_sent = False

    @property
    def awaits_end(self) -> bool:
        return self._finish_sent

    def replace(self, code: int, backoff: Backoff) -> float | None:
        """Replace what the server has under the name; seconds to wait before. None: the caller does not allow it.

        A replacement that ended early (PROTOCOL.md §6.3) is made again; one that completed is never replaced.
        """
        if not self._options.replace or self._replacements == REPLACEMENTS_MAX or self._is_replacement_complete():
            return None
        if self._replacements and code == ErrorCode.DIGEST_MISMATCH:
            # To send all the bytes again did not help.
            return None
        self._replacements += 1
        self._request = dataclasses.replace(self._request, disposition=Disposition.REPLACE)
        return 0.0 if self._replacements == 1 else backoff.next_s()

    async def run(self, link: Link) -> Sent:
        """Send what the server lacks over this connection. Raises LinkOver, StreamOver, SourceError."""
        async with link.slots:
            self._begin()
            number = await link.open(self._request_for(link), self)
            try:
                return await self._converse(link, number)
            except StreamOver as over:
                if over.error.code == ErrorCode.DIGEST_MISMATCH:
                    await self._source.check()
                raise
            finally:
                link.forget(number)

    def take(self, event: Acknowledged | Answered | Failed) -> None:
        """An event of this upload."""
        match event:
            case Acknowledged(_, next_expected_byte, ranges):
                durable_bytes = _durable_bytes(next_expected_byte, ranges)
                # Beyond all known before: a server that loses what it has, and breaks, makes no progress (R12.6).
                if durable_bytes > self._durable_bytes:
                    self._on_progressed()
                self._report(durable_bytes)
            case Failed(error=frames.Error() as error):
                self._failure = error
            case Answered(frame=frames.Opened() as opened):
                self._take_opened(opened)
            case Answered(frame=frames.Nack(start_byte=start, end_byte=end)):
                if start < min(end + 1, self._source.size):
                    self._pending.add(Span(start, min(end + 1, self._source.size)))
                self._finish_sent = False
            case Answered(frame=frames.Verifying(wait_ms)):
                self._verify_s = wait_ms / 1000
            case Answered(frame=frames.Finished() as finished):
                self._finished = finished
                self._on_progressed()
                if self._durable_bytes < finished.size:
                    # FINISHED may stand for the last ACK.
                    self._report(finished.size)

    def _begin(self) -> None:
        """Forget the state of the connection before: OPENED says where to resume."""
        self._pending = Pending(0, 0, ())
        self._opened = self._finished = self._failure = self._verify_s = None
        self._finish_sent = False

    def _request_for(self, link: Link) -> frames.Open:
        return self._request if Feature.SHA256 in link.features else dataclasses.replace(self._request, sha256=None)

    async def _converse(self, link: Link, number: int) -> Sent:
        while self._opened is None:
            await link.changed()
            self._raise_failure()
        form = self._form(link.features)
        while (sent := await self._result()) is None:
            self._raise_failure()
            if self._pending:
                await self._send(link, number, self._pending.take(link.chunk_bytes), form)
            elif not self._finish_sent:
                await self._finish(link, number)
            elif self._verify_s is None:
                await link.changed()
            else:
                await self._verify(link, self._verify_s)
        return sent

    async def _verify(self, link: Link, wait_s: float) -> None:
        """The server computes the digest: send FINISH again if no answer comes in that time."""
        self._verify_s = None
        until = link.now() + wait_s
        while (left_s := until - link.now()) > 0 and self._finish_sent and not self._is_over():
            await link.changed(left_s)
        self._finish_sent = self._is_over()

    async def _send(self, link: Link, number: int, span: Span, form: FrameType) -> None:
        data = await self._source.read(span.start, span.end - span.start)
        if await link.chunk(number, span.start, data, form):
            self._sent_bytes += len(data)
            return
        self._pending.add(span)
        if not self._is_over():
            # The server is going away: send the rest on the next connection.
            await link.changed()

    def _form(self, features: Feature) -> FrameType:
        form = self._options.form
        if form is FrameType.CHUNK_CRC32C and Feature.CHUNK_CRC32C in features:
            return form
        if (
            form is FrameType.CHUNK_COMPACT
            and Feature.CHUNK_COMPACT in features
            and self._source.size <= COMPACT_SIZE_MAX
        ):
            return form
        return FrameType.CHUNK

    async def _finish(self, link: Link, number: int) -> None:
        digest = await self._source.digest()
        if self._pending or self._is_over():
            # The server refused a range, or ended the stream, while the source was being read.
            return
        self._finish_sent = True
        sha256 = digest.sha256 if Feature.SHA256 in link.features else None
        link.finish(number, frames.Finish(self._source.size, digest.crc32c, sha256))

    def _take_opened(self, opened: frames.Opened) -> None:
        if self._request.disposition is Disposition.REPLACE:
            self._replacement_id = opened.upload_id
        # From here on the name stands for this upload: resuming must not replace it again.
        if self._request.disposition is not Disposition.RESUME_ONLY:
            self._request = dataclasses.replace(self._request, disposition=Disposition.RESUME_OR_CREATE)
        if self._opened_before or opened.next_expected_byte or opened.ranges:
            self._resumes += 1
        self._opened_before = True
        self._opened = opened
        if opened.state is UploadState.COMPLETE:
            self._report(opened.next_expected_byte)
            return
        ranges = opened.ranges or ()
        self._pending = Pending(self._source.size, opened.next_expected_byte, ranges)
        if self._missing_bytes is None:
            self._missing_bytes = self._pending.total_bytes
        self._report(_durable_bytes(opened.next_expected_byte, ranges))

    def _report(self, durable_bytes: int) -> None:
        self._durable_bytes = max(self._durable_bytes, durable_bytes)
        if self._on_progress is not None:
            name, size = self._request.name, self._source.size
            self._on_progress(UploadProgress(name, size, durable_bytes, self._resumes, self._sent_bytes))

    def _is_replacement_complete(self) -> bool:
        opened, finished = self._opened, self._finished
        is_complete = finished is not None or (opened is not None and opened.state is UploadState.COMPLETE)
        return is_complete and opened is not None and opened.upload_id == self._replacement_id

    def _is_over(self) -> bool:
        return self._failure is not None or self._finished is not None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise StreamOver(self._failure)

    async def _result(self) -> Sent | None:
        if self._finished is not None:
            answer = self._finished
            return await self._sent(answer.upload_id, answer.size, Digest(answer.crc32c, answer.sha256))
        if self._opened is not None and self._opened.state is UploadState.COMPLETE:
            opened = self._opened
            digest = Digest(opened.crc32c, opened.sha256)
            return await self._sent(opened.upload_id, opened.next_expected_byte, digest)
        return None

    async def _sent(self, upload_id: int, size: int, found: Digest) -> Sent:
        name = self._request.name
        if size != self._source.size:
            raise _content_changed(f"the server has {size} bytes under the name {name!r}, not {self._source.size}")
        ours = await self._source.digest()
        # If the replacement ended early, the name stands for the earlier file again (PROTOCOL.md §6.3).
        is_earlier = self._replacement_id not in {None, upload_id}
        pairs = ((ours.crc32c, found.crc32c), (ours.sha256, found.sha256))
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise _content_changed(f"the server has other content under the name {name!r}")
        if is_earlier and all(None in pair for pair in pairs):
            raise _content_changed(f"the server did not keep the replacement of {name!r} and has the earlier file")
        if ours.crc32c is not None and found.crc32c is None and found.sha256 is None:
            raise _content_changed(f"the server gives no digest of {name!r}, so it may have other content")
        resent_bytes = max(self._sent_bytes - (self._missing_bytes or 0), 0)
        return Sent(upload_id, name, size, found.crc32c, found.sha256, self._resumes, self._sent_bytes, resent_bytes)


def _durable_bytes(next_expected_byte: int, ranges: tuple[Span, ...]) -> int:
    return next_expected_byte + sum(span.end - span.start for span in ranges if span.start > next_expected_byte)


def _content_changed(detail: str) -> StreamOver:
    return StreamOver(frames.Error(ErrorCode.CONTENT_CHANGED, Action.OPEN_ANEW, 0, text=detail))


class StatusQuery:
    """Asks how far a name is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._answer: frames.Status | None = None
        self._failure: frames.Error | None = None

    @property
    def awaits_end(self) -> bool:
        return True

    def replace(self, code: int, backoff: Backoff) -> None:
        """There is nothing to replace."""

    async def run(self, link: Link) -> frames.Status:
        """Ask over this connection. Raises LinkOver, StreamOver."""
        self._failure = None
        number = link.query(self._name, self)
        try:
            while self._answer is None:
                await link.changed()
                if self._failure is not None:
                    raise StreamOver(self._failure)
        finally:
            link.forget(number)
        return self._answer

    def take(self, event: Acknowledged | Answered | Failed) -> None:
        """An event of this query."""
        match event:
            case Answered(frame=frames.Status() as status):
                self._answer = status
            case Failed(error=frames.Error() as error):
                self._failure = error

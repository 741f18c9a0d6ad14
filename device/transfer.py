"""One upload over as many connections as it takes. PROTOCOL.md §6 to §9, §14 and §20."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from device.exceptions import StreamOver
from device.link import Link
from device.pending import Pending
from device.report import Progress, ProgressListener, Sent
from device.source import Source
from protocol import frames
from protocol.checksum import Buffer, crc32c
from protocol.constants import Action, Disposition, Feature, FrameType, UploadState
from protocol.errors import ErrorCode
from protocol.events import Acknowledged, Answered, Failed
from protocol.ranges import RangeSet, Span

COMPACT_SIZE_MAX = 2**32
"""The compact form's offsets are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to send. `form` is used where the server takes it, else the 17-byte header that every server takes."""

    form: FrameType
    replace_changed: bool = False


class Transfer:
    """Sends one source. `on_durable` is called whenever bytes became durable."""

    def __init__(
        self,
        source: Source,
        request: frames.Open,
        options: TransferOptions,
        on_durable: Callable[[], None],
        on_progress: ProgressListener | None,
    ) -> None:
        self._source = source
        self._request = request
        self._options = options
        self._on_durable = on_durable
        self._on_progress = on_progress
        self._digests = RangeSet()
        self._opened_before = False
        self._opened_anew = False
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

    def open_anew(self) -> bool:
        """Replace what the server has under the name, where the caller allows that; once."""
        if not self._options.replace_changed or self._opened_anew:
            return False
        self._opened_anew = True
        self._digests = RangeSet()
        self._request = replace(self._request, disposition=Disposition.REPLACE)
        return True

    async def run(self, link: Link) -> Sent:
        """Send what the server lacks over this connection. Raises LinkOver, StreamOver, SourceError."""
        async with link.slots:
            self._begin()
            number = link.open(self._request_for(link), self)
            try:
                return await self._converse(link, number)
            finally:
                link.forget(number)

    def take(self, event: Acknowledged | Answered | Failed) -> None:
        """What the server says about this upload."""
        match event:
            case Acknowledged(_, next_expected_byte, ranges):
                self._durable(next_expected_byte, ranges)
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
                if self._durable_bytes < finished.size:
                    # The cycle of the last bytes may complete the upload, and FINISHED then stands for their ACK.
                    self._durable(finished.size, ())

    def _begin(self) -> None:
        """Forget what was under way on the connection before: OPENED says where to go on."""
        self._pending = Pending(0, 0, ())
        self._opened = self._finished = self._failure = self._verify_s = None
        self._finish_sent = False

    def _request_for(self, link: Link) -> frames.Open:
        return self._request if Feature.SHA256 in link.features else replace(self._request, sha256=None)

    async def _converse(self, link: Link, number: int) -> Sent:
        while self._opened is None:
            await link.news()
            self._raise_failure()
        form = self._form(link.features)
        while (sent := self._result()) is None:
            self._raise_failure()
            if self._pending:
                await self._send(link, number, self._pending.take(link.chunk_bytes), form)
            elif not self._finish_sent:
                self._finish_sent = True
                link.finish(number, self._finish(link.features))
            elif self._verify_s is None:
                await link.news()
            else:
                await self._verify(link, self._verify_s)
        return sent

    async def _verify(self, link: Link, wait_s: float) -> None:
        """The server is busy with the digest: FINISH again when that time is over without an answer."""
        self._verify_s = None
        until = link.now() + wait_s
        while (left_s := until - link.now()) > 0 and self._finish_sent and not self._is_over():
            await link.news(left_s)
        self._finish_sent = self._is_over()

    async def _send(self, link: Link, number: int, span: Span, form: FrameType) -> None:
        data = await self._source.read(span.start, span.end - span.start)
        self._digest(span.start, data)
        if await link.chunk(number, span.start, data, form):
            self._sent_bytes += len(data)
            return
        self._pending.add(span)
        if not self._is_over():
            # The server is going away: the rest follows on the next connection.
            await link.news()

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

    def _finish(self, features: Feature) -> frames.Finish:
        sha256 = self._request.sha256 if Feature.SHA256 in features else None
        return frames.Finish(self._source.size, self._crc32c(), sha256)

    def _digest(self, start: int, data: Buffer) -> None:
        """The CRC32C of what is read, kept by range, so that FINISH can tell that of the whole."""
        view = memoryview(data)
        for gap in self._digests.missing(start, start + len(view)):
            part = view[gap.start - start : gap.end - start]
            before = self._digests.tail(gap.start)
            if before is None:
                self._digests.add(gap.start, gap.end, crc32c(part))
            else:
                self._digests.extend(gap.start, gap.end, crc32c(part, before.crc32c))

    def _crc32c(self) -> int | None:
        """That of the whole file, where all of it was read by this process."""
        is_whole = self._digests.next_expected_byte == self._source.size
        return self._digests.prefix_crc32c() if is_whole else None

    def _take_opened(self, opened: frames.Opened) -> None:
        # From here on the name stands for this upload, so going on must not replace it again.
        if self._request.disposition is not Disposition.RESUME_ONLY:
            self._request = replace(self._request, disposition=Disposition.RESUME_OR_CREATE)
        if self._opened_before or opened.next_expected_byte or opened.ranges:
            self._resumes += 1
        self._opened_before = True
        self._opened = opened
        if opened.state is UploadState.COMPLETE:
            self._durable(opened.next_expected_byte, ())
            return
        ranges = opened.ranges or ()
        self._pending = Pending(self._source.size, opened.next_expected_byte, ranges)
        if self._missing_bytes is None:
            self._missing_bytes = self._pending.total_bytes
        self._durable(opened.next_expected_byte, ranges)

    def _durable(self, next_expected_byte: int, ranges: tuple[Span, ...]) -> None:
        durable = next_expected_byte + sum(span.end - span.start for span in ranges if span.start > next_expected_byte)
        # Above all that was durable before: a server that loses what it has, and breaks, is no good link.
        if durable > self._durable_bytes:
            self._on_durable()
            self._durable_bytes = durable
        if self._on_progress is not None:
            self._on_progress(Progress(self._request.name, self._source.size, durable, self._resumes, self._sent_bytes))

    def _is_over(self) -> bool:
        return self._failure is not None or self._finished is not None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise StreamOver(self._failure)

    def _result(self) -> Sent | None:
        if self._finished is not None:
            answer = self._finished
            return self._sent(answer.upload_id, answer.size, answer.crc32c, answer.sha256)
        if self._opened is not None and self._opened.state is UploadState.COMPLETE:
            opened = self._opened
            return self._sent(opened.upload_id, opened.next_expected_byte, opened.crc32c, opened.sha256)
        return None

    def _sent(self, upload_id: int, size: int, crc: int | None, sha256: bytes | None) -> Sent:
        ours = self._crc32c()
        wanted = self._request.sha256
        if (
            size != self._source.size
            or (ours is not None and crc is not None and crc != ours)
            or (wanted is not None and sha256 is not None and sha256 != wanted)
        ):
            detail = f"the server has other content under the name {self._request.name!r}"
            raise StreamOver(frames.Error(ErrorCode.CONTENT_CHANGED, Action.OPEN_ANEW, 0, text=detail))
        resent_bytes = max(self._sent_bytes - (self._missing_bytes or 0), 0)
        return Sent(upload_id, self._request.name, size, crc, sha256, self._resumes, self._sent_bytes, resent_bytes)


class Question:
    """Asks how far a name is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._answer: frames.Status | None = None
        self._failure: frames.Error | None = None

    @property
    def awaits_end(self) -> bool:
        return True

    def open_anew(self) -> bool:
        """There is nothing to open."""
        return False

    async def run(self, link: Link) -> frames.Status:
        """Ask over this connection. Raises LinkOver, StreamOver."""
        self._failure = None
        number = link.query(self._name, self)
        try:
            while self._answer is None:
                await link.news()
                if self._failure is not None:
                    raise StreamOver(self._failure)
        finally:
            link.forget(number)
        return self._answer

    def take(self, event: Acknowledged | Answered | Failed) -> None:
        """The answer."""
        match event:
            case Answered(frame=frames.Status() as status):
                self._answer = status
            case Failed(error=frames.Error() as error):
                self._failure = error

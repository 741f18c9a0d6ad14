"""The uploads that are being received, by id."""

from collections.abc import ValuesView

from daemon.ingest.digester import Digester
from daemon.ingest.live_upload import Listener, LiveUpload
from daemon.storage.interface import Staging
from protocol.errors import ErrorCode


class LiveUploads:
    """An upload is here while a stream has it open, or bytes of it are on their way to the disk."""

    def __init__(self, staging: Staging, digester: Digester) -> None:
        self._staging = staging
        self._digester = digester
        self._uploads: dict[int, LiveUpload] = {}

    def is_live(self, upload_id: int) -> bool:
        """Whether the upload is being received."""
        return upload_id in self._uploads

    def get(self, upload_id: int) -> LiveUpload | None:
        """The upload, if it is being received."""
        return self._uploads.get(upload_id)

    def add(self, upload: LiveUpload) -> None:
        """The upload is being received from now on."""
        self._uploads[upload.id] = upload

    def values(self) -> ValuesView[LiveUpload]:
        """All of them, as they are at any later time."""
        return self._uploads.values()

    def forget(self, upload: LiveUpload) -> Listener | None:
        """The upload is over here. Returns its listener, which gets nothing more from it."""
        upload.is_over = True
        if self._uploads.get(upload.id) is upload:
            del self._uploads[upload.id]
            self._staging.release(upload.id)
            self._digester.forget(upload)
        listener, upload.listener = upload.listener, None
        return listener

    def fail(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        """Forget the upload and end its stream. Bytes that are not durable are lost."""
        listener = self.forget(upload)
        if listener is not None:
            listener.failed(code, detail)

    def end_stream(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        """End the upload's stream. What it brought still becomes durable, and the upload can be resumed."""
        listener, upload.listener = upload.listener, None
        self.forget_if_done(upload)
        if listener is not None:
            listener.failed(code, detail)

    def forget_if_done(self, upload: LiveUpload) -> None:
        """Forget an upload that no stream has open once all its bytes are durable: the catalog knows the rest."""
        if upload.listener is None and upload.received.snapshot() == upload.durable:
            self.forget(upload)

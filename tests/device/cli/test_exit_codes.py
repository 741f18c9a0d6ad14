"""Exit codes and hints."""

import pytest

from device.cli.control_plane import ControlPlaneError, DigestError, NoAnswerError, TargetError
from device.cli.exit_codes import Exit, exit_code, message
from device.cli.settings import UsageError
from device.exceptions import SourceChanged, SourceError, UnreachableError, UplinkError, UploadFailed, upload_failure
from protocol.constants import Action
from protocol.errors import ErrorCode


def failed(code: ErrorCode) -> UploadFailed:
    return upload_failure(code, "said so", code.action)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), Exit.USAGE),
        (SourceError("x"), Exit.USAGE),
        (TargetError("x"), Exit.USAGE),
        (UnreachableError("x"), Exit.UNREACHABLE),
        (NoAnswerError("x"), Exit.UNREACHABLE),
        (UploadFailed(0, "not trusted", Action.GIVE_UP), Exit.UNREACHABLE),
        (ControlPlaneError(503, 0, "x"), Exit.UNREACHABLE),
        (DigestError("x"), Exit.REFUSED),
        (failed(ErrorCode.DIGEST_MISMATCH), Exit.REFUSED),
        (failed(ErrorCode.CONTENT_CHANGED), Exit.CONTENT_CHANGED),
        (SourceChanged("x"), Exit.SOURCE_CHANGED),
        (ControlPlaneError(409, 0x0200, "x"), Exit.REFUSED),
        (failed(ErrorCode.UNAUTHENTICATED), Exit.AUTHENTICATION),
        (failed(ErrorCode.DEVICE_DISABLED), Exit.AUTHENTICATION),
        (ControlPlaneError(403, 0, "x"), Exit.AUTHENTICATION),
        (failed(ErrorCode.GONE), Exit.NOT_FOUND),
        (failed(ErrorCode.NOT_FOUND), Exit.NOT_FOUND),
        (ControlPlaneError(404, 0, "x"), Exit.NOT_FOUND),
        (ControlPlaneError(410, 0, "x"), Exit.NOT_FOUND),
    ],
)
def test_each_failure_has_its_exit_code(error: UplinkError, code: Exit) -> None:
    assert exit_code(error) is code


def test_messages_say_what_to_do() -> None:
    assert "--replace" in message(failed(ErrorCode.CONTENT_CHANGED))
    assert message(SourceChanged("cut")).endswith("send it again with --replace")
    assert "another sender" in message(failed(ErrorCode.FENCED))
    assert "secret or token" in message(failed(ErrorCode.UNAUTHENTICATED))
    assert "secret or token" in message(ControlPlaneError(401, 0, "no"))
    assert "the same command goes on" in message(UnreachableError("no"))
    assert message(UsageError("give a name")) == "give a name"
    assert message(UploadFailed(ErrorCode.DISK_FULL, "full", Action.WAIT)) == "DISK_FULL: full"

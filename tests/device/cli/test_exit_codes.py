"""Exit codes and hints."""

import pytest

from device.cli.control_plane import ControlPlaneError, DigestError, NoAnswerError, TargetError
from device.cli.exit_codes import ExitCode, exit_code, message
from device.cli.settings import UsageError
from device.exceptions import SourceChanged, SourceError, UnreachableError, UplinkError, UploadFailed, upload_failure
from protocol.constants import Action
from protocol.errors import ErrorCode


def failed(code: ErrorCode) -> UploadFailed:
    return upload_failure(code, "said so", code.action)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), ExitCode.USAGE),
        (SourceError("x"), ExitCode.USAGE),
        (TargetError("x"), ExitCode.USAGE),
        (UnreachableError("x"), ExitCode.UNREACHABLE),
        (NoAnswerError("x"), ExitCode.UNREACHABLE),
        (UploadFailed(0, "not trusted", Action.GIVE_UP), ExitCode.UNREACHABLE),
        (ControlPlaneError(503, 0, "x"), ExitCode.UNREACHABLE),
        (DigestError("x"), ExitCode.REFUSED),
        (failed(ErrorCode.DIGEST_MISMATCH), ExitCode.REFUSED),
        (failed(ErrorCode.CONTENT_CHANGED), ExitCode.CONTENT_CHANGED),
        (SourceChanged("x"), ExitCode.SOURCE_CHANGED),
        (ControlPlaneError(409, 0x0200, "x"), ExitCode.REFUSED),
        (failed(ErrorCode.UNAUTHENTICATED), ExitCode.AUTHENTICATION),
        (failed(ErrorCode.DEVICE_DISABLED), ExitCode.AUTHENTICATION),
        (ControlPlaneError(403, 0, "x"), ExitCode.AUTHENTICATION),
        (failed(ErrorCode.GONE), ExitCode.NOT_FOUND),
        (failed(ErrorCode.NOT_FOUND), ExitCode.NOT_FOUND),
        (ControlPlaneError(404, 0, "x"), ExitCode.NOT_FOUND),
        (ControlPlaneError(410, 0, "x"), ExitCode.NOT_FOUND),
    ],
)
def test_each_failure_has_its_exit_code(error: UplinkError, code: ExitCode) -> None:
    assert exit_code(error) is code


def test_messages_say_what_to_do() -> None:
    assert "--replace" in message(failed(ErrorCode.CONTENT_CHANGED))
    assert message(SourceChanged("cut")).endswith("send it again with --replace")
    assert "another sender" in message(failed(ErrorCode.FENCED))
    assert "secret or token" in message(failed(ErrorCode.UNAUTHENTICATED))
    assert "secret or token" in message(ControlPlaneError(401, 0, "no"))
    assert "the same command resumes" in message(UnreachableError("no"))
    assert message(UsageError("give a name")) == "give a name"
    assert message(UploadFailed(ErrorCode.DISK_FULL, "full", Action.WAIT)) == "DISK_FULL: full"

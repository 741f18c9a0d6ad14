"""What failures say."""

from device.exceptions import UploadFailed, code_name, explain
from protocol.constants import Action
from protocol.errors import ErrorCode


def test_a_failure_names_the_code() -> None:
    error = UploadFailed(ErrorCode.GONE, "deleted yesterday", Action.GIVE_UP)
    assert str(error) == "GONE: deleted yesterday"
    assert (error.code, error.detail, error.action) == (ErrorCode.GONE, "deleted yesterday", Action.GIVE_UP)


def test_a_failure_without_a_code_is_its_detail() -> None:
    assert str(UploadFailed(0, "not trusted", Action.GIVE_UP)) == "not trusted"


def test_codes_of_a_newer_server_are_numbers() -> None:
    assert code_name(0x02EE) == "error 0x02ee"
    assert explain(0x02EE, None) == "the server gave no reason"


def test_the_servers_words_go_before_the_registrys() -> None:
    assert explain(ErrorCode.GONE, "by Ann") == "by Ann"
    assert explain(ErrorCode.GONE, None) == ErrorCode.GONE.summary
    assert explain(ErrorCode.GONE, "") == ErrorCode.GONE.summary

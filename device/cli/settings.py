"""The server and the credential of the command line: from flags, environment, a file or a prompt."""

import argparse
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from device.credentials import Credentials, SecretCredentials, TokenCredentials
from device.exceptions import UplinkError
from protocol.constants import ALPN
from protocol.handshake import read_secret

SERVER_DEFAULT = "127.0.0.1:7710"
HTTP_DEFAULT = "http://127.0.0.1:7780"
TENANT_DEFAULT = "default"


class UsageError(UplinkError):
    """The command was given wrongly."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach the server. Exactly one of `secret` and `token` is set."""

    host: str
    port: int
    http: str
    tenant: str
    device: str | None
    secret: str | None
    token: str | None
    tls: ssl.SSLContext | None
    https: ssl.SSLContext | None

    def credentials(self) -> Credentials:
        """For the TCP port."""
        if self.token is not None:
            return TokenCredentials(self.token)
        return SecretCredentials(self.device_or_raise(), self.secret or "", self.tenant)

    def device_or_raise(self) -> str:
        """The device's name. Raises UsageError."""
        if self.device is None:
            raise UsageError("which device? Name it by --device or UPLINK_DEVICE")
        return self.device


def load_settings(
    options: argparse.Namespace, environment: Mapping[str, str], prompt: Callable[[str], str] | None
) -> ConnectionSettings:
    """Flags before environment before defaults; `prompt` asks a person for the secret, if there is one.

    Raises UsageError.
    """
    host, port = _address(options.server or environment.get("UPLINK_SERVER") or SERVER_DEFAULT)
    token = environment.get("UPLINK_TOKEN") or None
    if options.secret_file is not None:
        token = None
    device = options.device or environment.get("UPLINK_DEVICE") or None
    return ConnectionSettings(
        host=host,
        port=port,
        http=_http(options.http or environment.get("UPLINK_HTTP") or HTTP_DEFAULT),
        tenant=options.tenant or environment.get("UPLINK_TENANT") or TENANT_DEFAULT,
        device=device,
        secret=None if token is not None else _secret(options.secret_file, device, environment, prompt),
        token=token,
        tls=_tls(options.ca, [ALPN]) if options.tls or options.ca is not None else None,
        https=None if options.ca is None else _tls(options.ca, []),
    )


def _secret(
    file: Path | None, device: str | None, environment: Mapping[str, str], prompt: Callable[[str], str] | None
) -> str:
    if device is None:
        raise UsageError("which device? Name it by --device or UPLINK_DEVICE, or set UPLINK_TOKEN")
    if file is not None:
        try:
            secret = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the secret file {file} cannot be read: {error}") from error
    elif environment.get("UPLINK_SECRET"):
        secret = environment["UPLINK_SECRET"]
    elif prompt is not None:
        secret = prompt(f"Secret of {device}: ")
    else:
        raise UsageError("no credential: set UPLINK_SECRET or UPLINK_TOKEN, or give --secret-file")
    try:
        read_secret(secret)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return secret.strip()


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UsageError(f"server {text!r}: write HOST:PORT, such as {SERVER_DEFAULT} or [::1]:7710")
    return host, port


def _http(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise UsageError(f"control plane {text!r}: write a URL such as {HTTP_DEFAULT}")
    return text


def _tls(ca: Path | None, protocols: list[str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:
        raise UsageError(f"the certificates in {ca} cannot be used: {error}") from error
    context.set_alpn_protocols(protocols)
    return context

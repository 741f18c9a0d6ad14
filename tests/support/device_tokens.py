"""Tokens for tests, issued as for an operator: by the daemon's own command line."""

from tests.support.daemon_process import DaemonProcess


async def device_token(daemon: DaemonProcess, device: str) -> str:
    """A token that lets the device upload, and read and delete its own files."""
    scopes = [option for scope in ("upload", "read", "delete") for option in ("--scope", scope)]
    return (await daemon.command("token", "--subject", device, "--ttl", "1h", "--quiet", *scopes)).strip()

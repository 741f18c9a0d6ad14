"""Tokens for tests, as an operator gets them: from the daemon's own command line."""

from tests.support.daemon_process import DaemonProcess


async def device_token(daemon: DaemonProcess, device: str) -> str:
    """Lets the device upload, and read and delete what is its own."""
    scopes = [option for scope in ("upload", "read", "delete") for option in ("--scope", scope)]
    return (await daemon.command("token", "--subject", device, "--ttl", "1h", "--quiet", *scopes)).strip()

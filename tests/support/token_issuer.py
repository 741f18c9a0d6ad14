"""An issuer of different tokens."""

from device.exceptions import CredentialError


class Tokens:
    """A callback that gives a new token each time, after `troubles` failures."""

    def __init__(self) -> None:
        self.count = 0
        self.troubles = 0

    async def __call__(self) -> str:
        if self.troubles:
            self.troubles -= 1
            raise CredentialError("the issuer does not answer")
        self.count += 1
        return f"token-{self.count}"

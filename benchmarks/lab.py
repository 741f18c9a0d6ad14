"""What a benchmark is given: its size, a directory to work in, and somebody to tell how far it is."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Size(enum.Enum):
    """How much is moved. The cases are the same in each."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"


ROUNDS = {Size.FULL: 5, Size.QUICK: 5, Size.TINY: 2}
"""Five pairs give an interval; two are enough to see that the harness works, and no figure of theirs is published."""


@dataclass(frozen=True, slots=True)
class Lab:
    """One run of one benchmark. `directory` is on the file system that is measured, and is removed afterwards."""

    size: Size
    directory: Path
    say: Callable[[str], None]

    @property
    def rounds(self) -> int:
        return ROUNDS[self.size]

    def pick(self, full: int, quick: int, tiny: int) -> int:
        """The amount for this run's size."""
        return {Size.FULL: full, Size.QUICK: quick, Size.TINY: tiny}[self.size]

"""What a benchmark gets: its size, a working directory, and a function that reports progress."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Size(enum.Enum):
    """How much data is moved. The cases are the same at every size."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"


ROUNDS = {Size.FULL: 5, Size.QUICK: 5, Size.TINY: 2}
"""Five pairs give a usable interval. Two only show that the harness works; their figures are not published."""


@dataclass(frozen=True, slots=True)
class Lab:
    """One run of one benchmark. `directory` is on the measured file system and is removed afterwards."""

    size: Size
    directory: Path
    report: Callable[[str], None]

    @property
    def rounds(self) -> int:
        return ROUNDS[self.size]

    def pick(self, full: int, quick: int, tiny: int) -> int:
        """The argument for this run's size."""
        return {Size.FULL: full, Size.QUICK: quick, Size.TINY: tiny}[self.size]

"""The output of the command line: results on standard output, progress and failures on standard error."""

import json
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm

from device.report import UploadProgress

Record = Mapping[str, str | int | list[dict[str, int]] | None]
"""One line of --json. The `end` of a byte range is exclusive, as in the HTTP API."""


class Terminal:
    """`quiet` shows failures alone, `as_json` one JSON object a line; neither shows progress."""

    def __init__(self, out: TextIO, err: TextIO, *, quiet: bool, as_json: bool) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._as_json = as_json

    def result(self, text: str, record: Record) -> None:
        """Report a result, as text or as JSON."""
        if self._as_json:
            print(json.dumps(record, ensure_ascii=False), file=self._out)
        elif not self._quiet:
            tqdm.write(text, file=self._out)

    def failure(self, text: str) -> None:
        """Report a failure: what happened, to what, and what to do."""
        tqdm.write(f"uplink: {text}", file=self._err)

    def bar(self, name: str, size: int, position: int = 0) -> "Bar":
        """A progress bar, shown on a terminal alone."""
        is_shown = not self._quiet and not self._as_json and self._err.isatty()
        return Bar(name, size, position, self._err if is_shown else None)


class Bar:
    """Shows how many bytes are durable, the rate, and how often the upload was resumed."""

    def __init__(self, name: str, size: int, position: int, file: TextIO | None) -> None:
        self._bar = tqdm(
            total=size,
            desc=name,
            position=position,
            file=file,
            disable=file is None,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            dynamic_ncols=True,
        )
        self._resumes = 0

    def show(self, progress: UploadProgress) -> None:
        """Show the progress of an upload."""
        if progress.resumes > self._resumes:
            self._resumes = progress.resumes
            # Bytes that the server already had would distort the rate.
            self._bar.initial = progress.durable_bytes if self._bar.n == 0 else self._bar.initial
            self._bar.set_postfix_str(f"resumed {self._resumes}x", refresh=False)
        self.reach(progress.durable_bytes)

    def reach(self, count: int) -> None:
        """Show this many bytes."""
        self._bar.update(count - self._bar.n)

    def close(self) -> None:
        """Stop drawing; the bar stays on the screen."""
        self._bar.close()

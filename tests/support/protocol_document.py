"""Reads PROTOCOL.md for its tests: the text, its sections and its tables."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")

Row = tuple[str, ...]


def tables(text: str) -> list[list[Row]]:
    """Every table: its heading row, then its rows."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [
        [
            tuple(cell.strip() for cell in line.strip("|").split(" | "))
            for line in table.splitlines()
            if "---" not in line
        ]
        for table in blocks
    ]


def table_of(*heading: str) -> list[Row]:
    """The rows of the only table whose heading row begins with `heading`."""
    [table] = [table for table in tables(DOCUMENT) if table[0][: len(heading)] == heading]
    return table[1:]


def section(heading: str) -> str:
    """The text below the one heading that matches this pattern, up to the next heading."""
    [text] = re.findall(rf"^##+ {heading}\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(text)

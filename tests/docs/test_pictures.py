"""The pictures in the documents are those that their script draws."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.pictures.scenes import PICTURES

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_its_script_draws(name: str) -> None:
    drawn = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert drawn == PICTURES[name], "draw it again: make pictures"
    assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"


def test_no_picture_lies_around() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(PICTURES)

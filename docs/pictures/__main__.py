"""`python -m docs.pictures` draws the pictures of README.md and docs/ again, beside this file."""

from pathlib import Path

from docs.pictures.scenes import PICTURES

for name, picture in PICTURES.items():
    Path(__file__).with_name(f"{name}.svg").write_text(picture, encoding="utf-8")

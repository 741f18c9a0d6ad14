"""The chart, parsed as XML: its marks and their positions."""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from benchmarks import chart
from benchmarks.figures import Interval
from benchmarks.lab import Size
from benchmarks.record import Record
from benchmarks.results import Case, Rival
from tests.support.benchmark_results import case, result, rival

SVG = "{http://www.w3.org/2000/svg}"


def _drawn(*cases: Case) -> Element:
    return ElementTree.fromstring(chart.draw([Record(result(*cases), Size.FULL, "2025-01-31", "a machine")]))


def _marks(drawn: Element, colour: str) -> list[Element]:
    """The marks of ratios; the key's marks are larger."""
    return [each for each in drawn.iter(f"{SVG}circle") if each.get("fill") == colour and each.get("r") == "4"]


def _numbers(element: Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


def _texts(drawn: Element) -> list[str | None]:
    return [each.text for each in drawn.iter(f"{SVG}text")]


def test_every_ratio_has_a_mark_of_its_colour_and_its_number() -> None:
    drawn = _drawn(case("both", rival(0.9), {"nginx": rival(117)}), case("limit", rival(0.5)), case("alone"))
    assert len(_marks(drawn, chart.LIMIT_COLOUR)) == 2
    assert len(_marks(drawn, chart.PEER_COLOUR)) == 1
    assert {"0.9", "0.5", "120", "ingest both", "ingest limit"} <= set(_texts(drawn))


def test_a_case_without_a_ratio_has_no_row() -> None:
    drawn = _drawn(case("alone"), case("lax", peers={"lax": rival(0.5, counts=False)}))
    assert not {"ingest alone", "ingest lax"} & set(_texts(drawn))


def test_a_ratio_of_1_is_drawn_on_the_line_at_1_between_worse_and_better() -> None:
    drawn = _drawn(case("worse", rival(0.5)), case("level", rival(1)), case("better", rival(2)))
    [level] = [each for each in drawn.iter(f"{SVG}line") if each.get("stroke") == "#111827"]
    worse, same, better = [float(mark.attrib["cx"]) for mark in _marks(drawn, chart.LIMIT_COLOUR)]
    assert worse < same < better
    assert _numbers(level, "x1", "x2") == [same, same]
    assert better - same == pytest.approx(same - worse, abs=0.2), "the scale is logarithmic"


def test_the_interval_is_drawn_around_its_mark() -> None:
    drawn = _drawn(case("one", rival(0.9)))
    [mark] = _marks(drawn, chart.LIMIT_COLOUR)
    [line] = [each for each in drawn.iter(f"{SVG}line") if each.get("stroke") == chart.LIMIT_COLOUR]
    low, high, y = _numbers(line, "x1", "x2", "y1")
    assert low < float(mark.attrib["cx"]) < high
    assert float(mark.attrib["cy"]) == y


def test_marks_beyond_the_scale_are_drawn_at_its_ends() -> None:
    far = Rival(Interval(1, 1, 1), Interval(1e6, 1e5, 1e9), "nothing")
    near = Rival(Interval(1, 1, 1), Interval(1e-6, 1e-9, 1e-5), "nothing")
    marks = _marks(_drawn(case("far", far), case("near", near)), chart.LIMIT_COLOUR)
    assert [float(mark.attrib["cx"]) for mark in marks] == [chart.LEFT + chart.WIDTH, chart.LEFT]


def test_rows_lie_inside_the_picture_one_below_the_other() -> None:
    drawn = _drawn(*(case(f"case {number}", rival(0.9), {"nginx": rival(2)}) for number in range(30)))
    heights = [float(mark.attrib["cy"]) for mark in _marks(drawn, chart.LIMIT_COLOUR)]
    assert heights == sorted(set(heights))
    assert heights[-1] < float(drawn.attrib["height"]) - chart.BOTTOM


def test_names_are_escaped() -> None:
    assert "ingest <1 KiB & more" in _texts(_drawn(case("<1 KiB & more", rival(0.9))))

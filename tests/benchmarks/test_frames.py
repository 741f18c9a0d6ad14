"""The frames benchmark at its smallest: every installed contestant takes part, and missing ones are named."""

import dataclasses
import math
from pathlib import Path

import pytest

from benchmarks import frames, table
from benchmarks.__main__ import measure
from benchmarks.lab import Lab, Size
from benchmarks.results import Result

TARGETS = {"one": 0.8, "hundred": 0.4, "one-crc32c": 0.8, "hundred-crc32c": 0.4}
"""The share of the limit that each case must reach."""


@pytest.fixture(scope="module")
def result() -> Result:
    return measure("frames", Size.TINY)


def test_one_and_a_hundred_devices_are_measured_with_either_checksum_and_with_tiny_chunks(result: Result) -> None:
    assert [case.name for case in result.cases] == [*TARGETS, "tiny-one", "tiny-hundred"]
    assert all(case.unit == "frames/s" and case.higher_is_better for case in result.cases)


def test_every_case_with_a_target_has_a_limit_and_finite_ratios(result: Result) -> None:
    for case in result.cases[: len(TARGETS)]:
        assert case.limit is not None
        for rival in (case.limit, *case.peers.values()):
            for value in (rival.figure.median, rival.ratio.low, rival.ratio.median, rival.ratio.high):
                assert math.isfinite(value)
                assert value > 0


def test_each_case_has_its_own_target(result: Result) -> None:
    for case in result.cases[: len(TARGETS)]:
        bounds = [target.bound for target in case.targets if target.what == "of the limit"]
        assert bounds == [TARGETS[case.name]]


def test_installed_brokers_take_part_and_the_others_are_named(result: Result) -> None:
    here = {peer.name for peer in frames.PEERS if peer.missing() is None}
    assert all(set(case.peers) == here for case in result.cases if case.name in ("one", "hundred"))
    assert len(result.missing) == len({peer.missing for peer in frames.PEERS if peer.missing() is not None})


def test_only_durable_configurations_count(result: Result) -> None:
    for case in result.cases:
        for name, rival in case.peers.items():
            assert rival.counts is not name.endswith("default")
            assert "messages" in rival.promise


def test_the_ratio_at_the_top_is_that_of_the_worst_case(result: Result) -> None:
    ratios = [case.limit.ratio.median for case in result.cases if case.name in TARGETS and case.limit is not None]
    assert result.as_json()["ratio_to_limit"] == min(ratios)


def test_the_result_can_be_printed(result: Result) -> None:
    assert '"ratio_to_limit"' in result.as_line()
    assert "hundred" in table.text(result)


def test_a_peer_that_is_not_installed_is_named_once_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = [dataclasses.replace(peer, missing=lambda: "a broker") for peer in frames.PEERS]
    monkeypatch.setattr(frames, "PEERS", absent)
    monkeypatch.setattr(frames, "SHAPES", frames.SHAPES[:1])
    result = frames.run(Lab(Size.TINY, tmp_path, lambda _: None))
    assert result.missing == ("a broker",)
    assert not result.cases[0].peers

"""Medians, confidence intervals of paired ratios, and rounding for display."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
"""Student's t for a two-sided 95 % interval, by degrees of freedom from 1."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and the 95 % confidence interval of the mean."""

    median: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """The median of `values` (two or more, positive) and the 95 % confidence interval of their geometric mean.

    It works on logarithms because ratios and rates vary by factors. With few rounds the interval is wide.
    """
    logs = [math.log(value) for value in values]
    error = statistics.stdev(logs) / math.sqrt(len(logs)) * T_975[min(len(logs) - 1, len(T_975)) - 1]
    mean = statistics.fmean(logs)
    return Interval(statistics.median(values), math.exp(mean - error), math.exp(mean + error))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], higher_is_better: bool) -> Interval:
    """How many times better ours is, round by round. Above 1 we are ahead, whatever the unit."""
    pairs = zip(ours, theirs, strict=True)
    return interval([a / b if higher_is_better else b / a for a, b in pairs])


def rounded(value: float, digits: int) -> str:
    """`value` with `digits` significant digits, and without an exponent for large numbers."""
    near = float(f"{value:.{digits}g}")
    return f"{near:,.0f}" if abs(near) >= 10 ** (digits - 1) else f"{near:.{digits}g}"

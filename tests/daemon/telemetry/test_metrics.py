"""How a histogram counts. The exposition's tests check that every count reaches the scraper."""

from daemon.telemetry.metrics import Histogram


class TestHistogram:
    def test_a_bound_includes_its_own_value(self) -> None:
        histogram = Histogram((1, 2.5, 10))
        for value in (0.5, 1, 1.1, 2.5, 10, 11, 1e9):
            histogram.observe(value)
        assert histogram.cumulative() == [("1.0", 2), ("2.5", 4), ("10.0", 5), ("+Inf", 7)]

    def test_count_and_total(self) -> None:
        histogram = Histogram((1,))
        histogram.observe(0.25)
        histogram.observe(2)
        assert (histogram.count, histogram.total) == (2, 2.25)

"""Measure uplinkd, the machine's limit and the alternatives side by side, in one run."""

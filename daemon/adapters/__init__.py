"""Where the daemon meets the machine: clock, randomness, threads and file calls, each behind an interface.

Nothing else in `daemon` touches them, so a test or a simulator can own time, chance and failure.
"""

"""The daemon's access to the machine: clock, randomness, threads and file calls, each behind an interface.

Nothing else in `daemon` uses them directly, so a test or a simulator can control time, randomness and failures.
"""

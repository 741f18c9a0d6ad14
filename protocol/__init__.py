"""The wire, sans-I/O: bytes in, events out, for both ends. PROTOCOL.md is its specification.

No socket, file, clock, random or logging is used here: the caller owns all of them.
"""

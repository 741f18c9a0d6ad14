"""Upkeep: cleanup, orphans, recovery at start, verification."""

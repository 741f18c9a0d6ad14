"""The command line `uplinkd`."""

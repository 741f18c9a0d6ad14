"""The command line `uplink`."""

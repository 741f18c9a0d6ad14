"""The device's end: `client.Uplink`, the library, and the `uplink` command line in `cli`."""

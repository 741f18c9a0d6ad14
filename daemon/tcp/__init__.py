"""Devices over TCP: listener, transport, session, streams."""

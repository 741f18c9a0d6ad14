"""The alternatives to uplinkd, each started on loopback with a statement of what it promises."""

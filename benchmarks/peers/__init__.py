"""What uplinkd's users would otherwise pick, each started on loopback with its promise stated."""

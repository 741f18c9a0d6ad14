"""Whether one device can keep the others waiting: each scene plays hostile or odd clients beside modest devices."""

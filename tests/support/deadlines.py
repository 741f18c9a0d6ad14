"""How long tests wait before they fail: all deadlines in one place.

Deadlines only catch hangs, so they are long enough for a machine that is busy with other work. TEST_DEADLINE_SCALE
multiplies them for a machine that is slower still.
"""

import os

SCALE = float(os.environ.get("TEST_DEADLINE_SCALE", "1"))

DEADLINE_S = 60 * SCALE
"""For one step: an answer, a condition, a task that ends."""

PROCESS_S = 120 * SCALE
"""For a process to start, to stop, or to carry out one command."""

SCENE_S = 900 * SCALE
"""For a whole test that starts many processes, or moves many bytes."""

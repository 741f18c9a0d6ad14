"""How long tests wait before they call something hung. One place for all of them.

Deadlines are there against hangs, and measure nothing: they hold on a machine that is busy with other work. On one that
is slower still, TEST_DEADLINE_SCALE multiplies them.
"""

import os

SCALE = float(os.environ.get("TEST_DEADLINE_SCALE", "1"))

DEADLINE_S = 60 * SCALE
"""For one step: an answer, a condition, a task that ends."""

PROCESS_S = 120 * SCALE
"""For a process to start, to stop, or to carry out one command."""

SCENE_S = 900 * SCALE
"""For a whole test that starts many processes, or moves many bytes."""

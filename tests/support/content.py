"""What the tests send."""

import hashlib
import random

DATA = random.Random(7).randbytes(700_000)
"""Many chunks, and not a whole number of them."""

DIGEST = hashlib.sha256(DATA).digest()

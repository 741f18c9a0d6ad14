"""The content that tests send."""

import hashlib
import random

DATA = random.Random(7).randbytes(700_000)
"""Many chunks, the last one shorter."""

DIGEST = hashlib.sha256(DATA).digest()

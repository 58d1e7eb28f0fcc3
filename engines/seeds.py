"""Seeds of random numbers: of an item's place in its job, and of nothing else, so that no answer depends on a fleet."""

import hashlib

from schemas.jobs import Key


def seed_of_item(key: Key, number: int, seed: int) -> int:
    """Return 64 bits for row `number` of a part, of a stage with this seed."""
    place = f"{key.job.tenant}/{key.job.id}/{key.segment}/{key.part}/{number}/{seed}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big")

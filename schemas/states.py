"""States of rigs that ended, as `rigflow status` shows them."""

STOPPED, LOST = "stopped", "lost"  # it ended in order; it does not report any more
ENDED = (STOPPED, LOST)

"""How long a part waits for a full batch while more rows are on their way.

What a batch that is not full costs is at most the time of a full one. So a part waits for some times that time: batches
that are not full take a small share of all time then, however few rows come, and a part is late by a few batches alone.
"""

TIMES = 10  # so many times the seconds of a batch: at most a tenth of the time is that of batches that are not full
LEAST_S = 2.0  # short enough for those who look at results, and long enough for parts that are being made
MOST_S = 10.0  # batches that take so long are those of processors, which take less time for fewer rows


def most_wait_s(batches: int, seconds: float) -> float:
    """Return the seconds that a part waits where so many `batches` took so many `seconds` together."""
    return min(MOST_S, max(LEAST_S, TIMES * seconds / batches if batches else LEAST_S))

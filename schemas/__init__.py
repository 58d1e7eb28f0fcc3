"""The messages between machines, and the files that a user writes. No I/O, no numpy, no asyncio."""

"""What travels between machines and what a user declares. No I/O, no numpy, no asyncio."""

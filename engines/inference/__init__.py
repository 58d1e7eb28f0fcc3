"""Sessions: one protocol for every inference backend."""

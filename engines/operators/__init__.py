"""Operators, which stages between decode and encode run. One file each, found by name; see `engines.ports`."""

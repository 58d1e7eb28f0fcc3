"""Operators: what the stages between decode and encode do. One file each, found by name; see `engines.ports`."""

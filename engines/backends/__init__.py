"""What runs models: one class for each backend, found by name in `engines.registry`."""

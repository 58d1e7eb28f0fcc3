"""Result formats: each one encodes a part in a worker, and assembles a job in the collector."""

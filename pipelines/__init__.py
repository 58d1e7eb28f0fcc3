"""Moves work: the broker, its streams, publishing, collecting. No processes or signals. It alone imports nats."""

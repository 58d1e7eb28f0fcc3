"""How work moves: the broker, its streams, publishing, collecting. No processes, no signals; alone imports nats."""

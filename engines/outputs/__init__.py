"""What results look like: each format encodes one part in a worker and assembles a job in the collector."""

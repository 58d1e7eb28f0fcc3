"""The HTTP gateway: one more client of the fleet. It keeps nothing itself, so any number of them can run."""

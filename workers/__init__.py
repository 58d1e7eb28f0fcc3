"""The stages, the processes that run them, and the command line."""

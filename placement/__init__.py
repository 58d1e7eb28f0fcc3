"""Where work runs: what a fleet's devices can do, what a job costs on each, and who hosts which stage. Pure."""

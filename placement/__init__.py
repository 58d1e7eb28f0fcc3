"""Where work runs: what devices can do, what a job costs on each, and which of them runs which stage. No I/O."""

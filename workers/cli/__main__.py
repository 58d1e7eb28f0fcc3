"""`python -m workers.cli` is `rigflow`."""

from workers.cli import main

main()

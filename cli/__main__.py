"""`python -m cli` is `rigflow`."""

from cli import main

main()

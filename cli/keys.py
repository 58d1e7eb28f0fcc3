"""`rigflow keys`: keys of the broker's users and of the HTTP gateway."""

import typer

app = typer.Typer(
    name="keys",
    help="Keys of the broker's users and of the HTTP gateway.\n\nExample: rigflow keys nats worker.nk",
    rich_markup_mode=None,
)

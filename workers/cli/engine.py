"""`rigflow engine`: models, and what they are compiled to."""

import typer

from workers.cli.export import export

app = typer.Typer(
    name="engine",
    rich_markup_mode=None,
    help="Models and engines.\n\nExample: rigflow engine export x3d_s --weights X3D_S.pyth",
)


@app.callback()
def _group() -> None:
    """Keeps `engine` a group of commands while it has one only."""


app.command()(export)

"""`rigflow keys`: keys of the broker's users and of the HTTP gateway."""

from cli.help import Commands

app = Commands(
    name="keys",
    help="Keys of the broker's users and of the HTTP gateway.\n\nExample: rigflow keys nats worker.nk",
)

"""The help of commands: one form for all releases of typer, without the names of Python's types.

`Commands` is what groups of commands are made of.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

Row = tuple[str, str]  # what is typed, and what it does


class _Plain:
    """How a command describes its arguments and options."""

    params: list[Any]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words behind the command's name."""
        names = [argument_name(each) for each in self.params if each.param_type_name == "argument"]
        return ["[OPTIONS]", *names]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does; its example stays one line, so that it can be copied."""
        for paragraph in (self.help or "").split("\n\n"):  # type: ignore[attr-defined]
            text = " ".join(paragraph.split())
            formatter.write_paragraph()
            with formatter.indentation():
                if text.startswith("Example: "):
                    formatter.write(f"{'':>{formatter.current_indent}}{text}\n")
                else:
                    formatter.write_text(text)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the tables of arguments, options and commands."""
        arguments = [
            (argument_name(each), each.help or "") for each in self.params if each.param_type_name == "argument"
        ]
        _table(formatter, "Arguments", arguments)
        _table(formatter, "Options", list(_options(self.get_params(ctx))))  # type: ignore[attr-defined]
        if commands := getattr(self, "commands", None):
            _table(formatter, "Commands", [(name, _first(of.help or "")) for name, of in commands.items()])


class Command(_Plain, TyperCommand):
    """One command."""


class Group(_Plain, TyperGroup):
    """A group of commands; `rigflow` itself is one."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words behind the group's name; a command of a group that does something by itself may be left out."""
        return ["[OPTIONS]", "[COMMAND ...]" if self.invoke_without_command else "COMMAND ..."]


class Commands(typer.Typer):
    """A group of commands whose help has the form of this module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=Group, rich_markup_mode=None, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """A decorator that adds a command."""
        return super().command(name, cls=Command, **options)


def _table(formatter: Any, title: str, rows: list[Row]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def argument_name(param: Any) -> str:
    """An argument as the usage of its command has it."""
    name = param.metavar or param.name.upper()
    return name if param.required else f"[{name}]"


def _options(params: list[Any]) -> Iterator[Row]:
    for each in params:
        if each.param_type_name == "option" and not each.hidden:
            names = ", ".join(sorted((*each.opts, *each.secondary_opts), key=len))
            value = "" if each.is_flag or each.count else f" {each.metavar or _choices(each) or each.name.upper()}"
            yield f"{names}{value}", " ".join(filter(None, (each.help, _default(each))))


def _choices(param: Any) -> str:
    """The words that an option takes; they stand where older and newer releases of typer have them."""
    of = getattr(param, "type", None), getattr(param, "type_descriptor", None)
    found = next((choices for each in of if (choices := getattr(each, "choices", None))), ())
    return "|".join(str(each.value if isinstance(each, Enum) else each) for each in found)


def _default(param: Any) -> str:
    """The default of an option, unless its help says it or there is none; whether it has to be given."""
    if param.required:
        return "Required."
    default = param.default.value if isinstance(param.default, Enum) else param.default
    if default in (None, False, "", ()) or callable(default) or "Default" in (param.help or "") or param.is_flag:
        return ""
    shown = f"{default:,.12g}" if isinstance(default, float) else str(default)
    return f"Default: {'the current folder' if shown == '.' else shown}."


def _first(text: str) -> str:
    """The first sentence of a help, without its full stop."""
    return text.partition("\n\n")[0].replace("\n", " ").rstrip(".")

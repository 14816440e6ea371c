"""The output of commands: tables for people, JSON for programs, and help."""

import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])


class CommandGroup(click.Group):
    """A group whose help shows the whole first sentence of each command, on any terminal."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command with a short help that no ellipsis cuts."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.short_help is None:
            command.short_help = command.get_short_help_str(sys.maxsize)
        return command


def json_option(command: F) -> F:
    """Add `--json`, passed as `as_json`."""
    message = "Print one JSON document."
    return click.option("--json", "as_json", is_flag=True, help=message)(command)


def print_json(value: object) -> None:
    """Print a value that msgspec can encode."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below a header; on a terminal that is too narrow, each row as a list of fields."""
    lines = [tuple(head), *(tuple(_cell(value) for value in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    columns = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) > columns:
        click.echo("\n".join(_fields(head, line, columns) for line in lines[1:]), nl=False)
        return
    for line in lines:
        told = (value.ljust(width) for value, width in zip(line, widths, strict=True))
        click.echo("  ".join(told).rstrip())


def _cell(value: object) -> str:
    """Return a value as people write it: `-` for none, `yes` and `no`, and times in UTC."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    return str(value)


def _fields(head: Sequence[str], line: Sequence[str], columns: int) -> str:
    """Return a row as lines of a name and a value, which is wrapped."""
    formatter = click.HelpFormatter(width=columns)
    formatter.write_dl(list(zip(head, line, strict=True)))
    return formatter.getvalue()

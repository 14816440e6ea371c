"""`referral check`."""

import sys
from collections.abc import Mapping, Sequence

import click
from dishka import AsyncContainer

from referral.adapters.failure_causes import cause_of, server_of
from referral.cli.environment import (
    settings_from_environment,
    with_container,
)
from referral.cli.text_tables import print_table
from referral.container.configuration import (
    database_url,
    parts_in_use,
)
from referral.core.use_cases.health import CheckParts, PartHealth
from referral.settings import Settings


@click.command()
def check() -> None:
    """Show the parts in use and whether each answers; exit with 1 when one does not."""
    settings = settings_from_environment()

    async def ask(container: AsyncContainer) -> list[PartHealth]:
        return await (await container.get(CheckParts))()

    states = with_container(ask)
    _show_parts(parts_in_use(settings), states, _servers(settings))
    sys.exit(0 if all(state.answers for state in states) else 1)


def _servers(settings: Settings) -> dict[str, str]:
    """Return the addresses of the servers that `referral check` asks, by the part's name."""
    named = {"database": database_url(settings), "redis": settings.redis_url}
    return {part: server_of(url) for part, url in named.items() if url}


def _show_parts(
    in_use: Mapping[str, str], states: Sequence[PartHealth], servers: Mapping[str, str]
) -> None:
    """Show which parts are in use, and then how those are that can be asked."""
    print_table(("part", "in use"), list(in_use.items()))
    click.echo()
    print_table(("asked", "state"), [(state.part, _word(state, servers)) for state in states])


def _word(state: PartHealth, servers: Mapping[str, str]) -> str:
    if state.error is None or state.error.__cause__ is None:
        return state.word
    server = f"{servers[state.part]}, " if state.part in servers else ""
    return f"{state.word}: {server}{cause_of(state.error)}"

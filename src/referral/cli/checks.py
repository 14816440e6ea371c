"""`referral check`."""

import sys
from collections.abc import Mapping, Sequence

import click
from dishka import AsyncContainer

from referral.adapters.failure_causes import describe_cause, host_and_port
from referral.cli.environment import run_with_container, settings_from_environment
from referral.cli.text_tables import print_table
from referral.container.configuration import database_url, parts_in_use
from referral.core.use_cases.health import CheckParts, PartHealth
from referral.settings import Settings


@click.command()
def check() -> None:
    """Show the adapters in use and check their servers; exit with 1 if one is unavailable."""
    settings = settings_from_environment()

    async def check_parts(container: AsyncContainer) -> list[PartHealth]:
        return await (await container.get(CheckParts))()

    states = run_with_container(check_parts)
    _show_parts(parts_in_use(settings), states, _servers(settings))
    sys.exit(0 if all(state.is_available for state in states) else 1)


def _servers(settings: Settings) -> dict[str, str]:
    """Return the host and port of each server that `referral check` calls, by part."""
    urls = {"database": database_url(settings), "redis": settings.redis_url}
    return {part: host_and_port(url) for part, url in urls.items() if url}


def _show_parts(
    in_use: Mapping[str, str], states: Sequence[PartHealth], servers: Mapping[str, str]
) -> None:
    """Print the parts in use, and the state of those with a server."""
    print_table(("part", "in use"), list(in_use.items()))
    click.echo()
    print_table(("server", "state"), [(state.name, _describe(state, servers)) for state in states])


def _describe(state: PartHealth, servers: Mapping[str, str]) -> str:
    if state.error is None or state.error.__cause__ is None:
        return state.status
    server = f"{servers[state.name]}, " if state.name in servers else ""
    return f"{state.status}: {server}{describe_cause(state.error)}"

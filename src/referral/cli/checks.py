"""`referral check`."""

import sys
from collections.abc import Mapping, Sequence

import click
from dishka import AsyncContainer

from referral.adapters.failure_causes import describe_cause, host_and_port
from referral.cli.environment import run_with_container, settings_from_environment
from referral.cli.output import json_option, print_json, print_table
from referral.container.configuration import adapters_in_use, database_url
from referral.core.use_cases.health import CheckComponents, ComponentHealth
from referral.settings import Settings


@click.command()
@json_option
def check(*, as_json: bool) -> None:
    """Show the adapters in use and check their servers; exit with 1 if one is unavailable."""
    settings = settings_from_environment()

    async def check_components(container: AsyncContainer) -> list[ComponentHealth]:
        return await (await container.get(CheckComponents))()

    components = run_with_container(check_components)
    adapters, servers = adapters_in_use(settings), _servers(settings)
    if as_json:
        print_json({"in_use": adapters, "servers": [_fields(each, servers) for each in components]})
    else:
        _show_components(adapters, components, servers)
    sys.exit(0 if all(component.is_available for component in components) else 1)


def _servers(settings: Settings) -> dict[str, str]:
    """Return the host and port of each server that `referral check` calls, by component."""
    urls = {"database": database_url(settings), "redis": settings.redis_url}
    return {name: host_and_port(url) for name, url in urls.items() if url}


def _show_components(
    adapters: Mapping[str, str], components: Sequence[ComponentHealth], servers: Mapping[str, str]
) -> None:
    """Print the adapters in use, and the status of components with a server."""
    print_table(("part", "in use"), list(adapters.items()))
    click.echo()
    print_table(("server", "state"), [(each.name, _describe(each, servers)) for each in components])


def _fields(component: ComponentHealth, servers: Mapping[str, str]) -> dict[str, object]:
    state = _describe(component, servers)
    return {"name": component.name, "available": component.is_available, "state": state}


def _describe(component: ComponentHealth, servers: Mapping[str, str]) -> str:
    if component.error is None or component.error.__cause__ is None:
        return component.status
    server = f"{servers[component.name]}, " if component.name in servers else ""
    return f"{component.status}: {server}{describe_cause(component.error)}"

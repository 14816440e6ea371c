"""`referral create-client`."""

from collections.abc import Sequence

import click
from dishka import AsyncContainer

from referral.cli.environment import run_with_container
from referral.core.entities.clients import GRANTABLE_SCOPES, Client, Scope
from referral.core.use_cases.clients import CreateClient


@click.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    callback=lambda _, __, values: _scopes(values),
    help=f"A scope to grant: {', '.join(sorted(GRANTABLE_SCOPES))}. Repeat the option for several.",
)
def create_client(name: str, scopes: list[Scope]) -> None:
    """Register an OAuth 2.0 client; print its id and its secret, which is shown only once."""

    async def create(container: AsyncContainer) -> tuple[Client, str]:
        return await (await container.get(CreateClient))(name, scopes)

    client, secret = run_with_container(create)
    click.echo(f"client_id={client.id}\nclient_secret={secret}")


def _scopes(values: Sequence[str]) -> list[Scope]:
    named = [name for value in values for name in value.replace(",", " ").split()]
    unknown = set(named) - GRANTABLE_SCOPES
    if unknown or not named:
        message = f"These scopes cannot be granted: {', '.join(sorted(unknown)) or 'none'}."
        raise click.BadParameter(f"{message} Use {', '.join(sorted(GRANTABLE_SCOPES))}.")
    return [Scope(name) for name in named]

"""`referral create-client` and `referral clients`."""

from collections.abc import Sequence

import click
from dishka import AsyncContainer

from referral.cli.environment import run_with_container
from referral.cli.output import CommandGroup, json_option, print_json, print_table
from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import GRANTABLE_SCOPES, Client, Scope
from referral.core.use_cases.clients import (
    CreateClient,
    CreatePublicClient,
    ListClients,
    RemoveClient,
    RotateClientSecret,
)


@click.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    callback=lambda _, __, values: _scopes(values),
    help=f"A scope to grant: {', '.join(sorted(GRANTABLE_SCOPES))}. Repeat the option for several.",
)
@click.option(
    "--redirect-uri",
    "redirect_uris",
    multiple=True,
    help="Where users return to after signing in to the client. Repeat the option for several.",
)
@click.option(
    "--public",
    is_flag=True,
    help="Create a client without a secret: a single-page or mobile application.",
)
@json_option
def create_client(
    name: str, scopes: list[Scope], redirect_uris: tuple[str, ...], *, public: bool, as_json: bool
) -> None:
    """Register an OAuth 2.0 client; print its id and its secret, which is shown only once."""
    if public and scopes:
        raise click.UsageError("A public client has no scopes of its own. Remove --scope.")
    if public and not redirect_uris:
        raise click.UsageError("A public client needs --redirect-uri.")
    if not (scopes or redirect_uris):
        raise click.UsageError("Give the client a --scope, or a --redirect-uri, or both.")

    async def create(container: AsyncContainer) -> tuple[Client, str]:
        return await (await container.get(CreateClient))(name, scopes, OPERATOR, redirect_uris)

    async def create_public(container: AsyncContainer) -> Client:
        return await (await container.get(CreatePublicClient))(name, redirect_uris, OPERATOR)

    if public:
        _print_id(run_with_container(create_public), as_json=as_json)
    else:
        _print_secret(*run_with_container(create), as_json=as_json)


@click.group(cls=CommandGroup)
def clients() -> None:
    """List OAuth 2.0 clients, rotate their secrets and remove them."""


@clients.command("list")
@json_option
def list_clients(*, as_json: bool) -> None:
    """List the clients, by name."""

    async def find(container: AsyncContainer) -> list[Client]:
        return await (await container.get(ListClients))()

    found = run_with_container(find)
    if as_json:
        print_json([_fields(client) for client in found])
        return
    rows = [
        (
            client.name,
            client.id,
            "public" if client.is_public else "confidential",
            " ".join(sorted(client.scopes)) or "-",
            " ".join(client.redirect_uris) or "-",
            f"{client.created_at:%Y-%m-%d}",
        )
        for client in found
    ]
    print_table(("name", "id", "type", "scopes", "redirect URIs", "created"), rows)


@clients.command("rotate-secret")
@click.argument("client")
@json_option
def rotate_secret(client: str, *, as_json: bool) -> None:
    """Replace the secret of CLIENT, an id or a name; the old one is invalid at once."""

    async def rotate(container: AsyncContainer) -> tuple[Client, str]:
        return await (await container.get(RotateClientSecret))(client, OPERATOR)

    _print_secret(*run_with_container(rotate), as_json=as_json)


@clients.command("remove")
@click.argument("client")
@json_option
def remove_client(client: str, *, as_json: bool) -> None:
    """Remove CLIENT, an id or a name; it gets no new token."""

    async def remove(container: AsyncContainer) -> Client:
        return await (await container.get(RemoveClient))(client, OPERATOR)

    removed = run_with_container(remove)
    if as_json:
        print_json(_fields(removed))
    else:
        click.echo(f"Removed: {removed.name} ({removed.id})")


def _print_secret(client: Client, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_fields(client) | {"client_secret": secret})
    else:
        click.echo(f"client_id={client.id}\nclient_secret={secret}")


def _print_id(client: Client, *, as_json: bool) -> None:
    if as_json:
        print_json(_fields(client))
    else:
        click.echo(f"client_id={client.id}")


def _fields(client: Client) -> dict[str, object]:
    return {
        "client_id": client.id,
        "name": client.name,
        "public": client.is_public,
        "scopes": sorted(client.scopes),
        "redirect_uris": client.redirect_uris,
        "created_at": client.created_at,
    }


def _scopes(values: Sequence[str]) -> list[Scope]:
    named = [name for value in values for name in value.replace(",", " ").split()]
    unknown = set(named) - GRANTABLE_SCOPES
    if unknown or (values and not named):
        message = f"These scopes cannot be granted: {', '.join(sorted(unknown)) or 'none'}."
        raise click.BadParameter(f"{message} Use {', '.join(sorted(GRANTABLE_SCOPES))}.")
    return [Scope(name) for name in named]

"""`referral create-admin` and `referral block`."""

import sys

import click
from dishka import AsyncContainer

from referral.cli.environment import run_with_container
from referral.cli.output import json_option, print_json
from referral.core.entities.audit import OPERATOR
from referral.core.entities.users import Role, User
from referral.core.use_cases.accounts import BlockAccount, FindAccount, NewAccount, Register


@click.command()
@click.argument("email")
@json_option
def create_admin(email: str, *, as_json: bool) -> None:
    """Create an admin, who may read and change everything.

    The command prompts for the password, or reads it from standard input. It has no option for
    it, because other users of the machine can see the arguments of a process.
    """
    password = (
        click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        if sys.stdin.isatty()
        else sys.stdin.readline().rstrip("\r\n")
    )
    new_account = NewAccount(email, password, role=Role.ADMIN)

    async def create(container: AsyncContainer) -> User:
        return await (await container.get(Register))(new_account)

    user = run_with_container(create)
    if as_json:
        account = {"id": user.id, "email": user.email, "role": user.role}
        print_json(account | {"created_at": user.created_at})
    else:
        click.echo(f"{user.email} is now an admin.")


@click.command()
@click.argument("email")
@click.option("--undo", is_flag=True, help="Unblock the user.")
@json_option
def block(email: str, *, undo: bool, as_json: bool) -> None:
    """Block a user: end all sessions and refuse new ones."""

    async def change(container: AsyncContainer) -> User:
        found = await (await container.get(FindAccount))(email)
        return await (await container.get(BlockAccount))(found.id, OPERATOR, undo=undo)

    user = run_with_container(change)
    if as_json:
        print_json({"id": user.id, "email": user.email, "blocked": user.blocked_at is not None})
    else:
        click.echo(f"{user.email} is unblocked." if undo else f"{user.email} is blocked.")

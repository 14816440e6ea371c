"""`referral create-admin` and `referral block`."""

import sys

import click
from dishka import AsyncContainer

from referral.cli.environment import (
    run_with_container,
)
from referral.core.entities.users import Role, User
from referral.core.use_cases.accounts import BlockAccount, NewAccount, Register


@click.command()
@click.argument("email")
def create_admin(email: str) -> None:
    """Create an account that may list every user's referrals.

    The password is asked for, or read from standard input. There is no option for it: the
    arguments of a process are for everyone to see.
    """
    password = (
        click.prompt("Password", hide_input=True, confirmation_prompt=True)
        if sys.stdin.isatty()
        else sys.stdin.readline().rstrip("\r\n")
    )
    new_account = NewAccount(email, password, role=Role.ADMIN)

    async def create(container: AsyncContainer) -> User:
        return await (await container.get(Register))(new_account)

    user = run_with_container(create)
    click.echo(f"{user.email} is an admin now.")


@click.command()
@click.argument("email")
@click.option("--undo", is_flag=True, help="Unblock the user.")
def block(email: str, *, undo: bool) -> None:
    """Block a user: end all sessions and refuse new ones."""

    async def change(container: AsyncContainer) -> User:
        return await (await container.get(BlockAccount))(email, undo=undo)

    user = run_with_container(change)
    click.echo(f"{user.email} may log in again." if undo else f"{user.email} is shut out.")

"""The `referral` command."""

import click

from referral.cli.accounts import block, create_admin
from referral.cli.checks import check
from referral.cli.clients import create_client
from referral.cli.jobs import jobs
from referral.cli.serving import migrate, run
from referral.cli.worker import worker


@click.group()
def main() -> None:
    """A self-hosted referral system service."""


for command in (block, check, create_admin, create_client, jobs, migrate, run, worker):
    main.add_command(command)

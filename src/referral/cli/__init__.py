"""The `referral` command."""

import click

from referral.cli.accounts import block, create_admin
from referral.cli.administration import admin
from referral.cli.checks import check
from referral.cli.clients import clients, create_client
from referral.cli.jobs import jobs
from referral.cli.output import CommandGroup
from referral.cli.serving import migrate, run
from referral.cli.statistics import statistics
from referral.cli.transfers import export_file, import_file
from referral.cli.webhooks import webhooks
from referral.cli.worker import worker


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="referral", prog_name="referral", message="%(prog)s %(version)s")
def main() -> None:
    """A self-hosted referral service. `referral run` starts it."""


admin.add_command(statistics)
for command in (
    admin,
    block,
    check,
    clients,
    create_admin,
    create_client,
    export_file,
    import_file,
    jobs,
    migrate,
    run,
    webhooks,
    worker,
):
    main.add_command(command)

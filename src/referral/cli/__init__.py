"""The `referral` command."""

from importlib import import_module

import click

from referral.cli.output import CommandGroup

COMMANDS = {
    "admin": "administration:admin",
    "block": "accounts:block",
    "check": "checks:check",
    "clients": "clients:clients",
    "create-admin": "accounts:create_admin",
    "create-client": "clients:create_client",
    "export": "transfers:export_file",
    "import": "transfers:import_file",
    "jobs": "jobs:jobs",
    "migrate": "serving:migrate",
    "run": "serving:run",
    "webhooks": "webhooks:webhooks",
    "worker": "worker:worker",
}
"""The module and the object of each command. Only the one that runs is imported."""


class MainGroup(CommandGroup):
    """The commands, which are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module, _, name = COMMANDS[cmd_name].partition(":")
            self.add_command(getattr(import_module(f"{__name__}.{module}"), name), cmd_name)
        return super().get_command(ctx, cmd_name)


@click.group(cls=MainGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="referral", prog_name="referral", message="%(prog)s %(version)s")
def main() -> None:
    """A self-hosted referral service. `referral run` starts it."""

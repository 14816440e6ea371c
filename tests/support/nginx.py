"""Debian's nginx with the project's configuration, in front of services of a test."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.service_process import free_port
from tests.support.waiting import wait_for_port

SITE_TEMPLATE = (
    Path(__file__).parents[2] / "docs" / "operations" / "nginx" / "referral.conf.template"
)
CONFIG_TEMPLATE = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream services {{ {servers} }}
    {site}
}}
"""


LOG_NAME = "output.log"
"""What nginx writes to stdout and stderr, in its folder: the logs of the configuration."""


@contextmanager
def run_nginx(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """Run nginx in front of services on these ports, and yield its URL."""
    folder.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    values = {"LISTEN": f"127.0.0.1:{port}", "API": "services", "RESOLVER": "127.0.0.1"}
    values |= {"PUBLIC_URL": url, "RATE": "10000"}
    site = re.sub(r"\$\{([A-Z_]+)\}", lambda found: values[found[1]], SITE_TEMPLATE.read_text())
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIG_TEMPLATE.format(folder=folder, servers=servers, site=site))
    command = [_program(), "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(configuration)]
    with (
        (folder / LOG_NAME).open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,  # noqa: S603 - of the tests
    ):
        try:
            wait_for_port(port)
            yield url
        finally:
            process.terminate()


def _program() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/usr/local/sbin:/usr/local/bin")
    assert found, "Install nginx; .ci/run and `make test` do so on Debian as root."
    return found

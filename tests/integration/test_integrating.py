"""The shell sessions and the example of docs/integrating.md."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.service_process import Service, free_port, running_service
from tests.support.waiting import wait_for_value

GUIDE = (Path(__file__).parents[2] / "docs" / "integrating.md").read_text()
START_SECONDS = 60.0


def blocks(language: str) -> list[str]:
    """Return the code of a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@contextmanager
def trusting_service(folder: Path, **settings: str) -> Iterator[tuple[Service, dict[str, str]]]:
    """Run a service with a client for the shop; yield it and the variables of the guide."""
    with running_service(folder, **settings) as service:
        (command,) = re.findall(r"^referral (create-client .*)$", GUIDE, re.MULTILINE)
        created = subprocess.run(  # noqa: S603 - our own guide
            [sys.executable, "-m", "referral", *command.split(), "--json"],
            env=os.environ | {"REFERRAL_DATA_DIR": str(folder)},
            capture_output=True,
            check=True,
        )
        client = json.loads(created.stdout)
        variables = {"CLIENT_ID": client["client_id"], "CLIENT_SECRET": client["client_secret"]}
        yield service, os.environ | variables


def put_encoded(url: str, variables: dict[str, str]) -> str:
    """Put a user whose id has a slash, as the server of production sees it; return the id."""
    credentials = variables["CLIENT_ID"], variables["CLIENT_SECRET"]
    with httpx.Client(base_url=f"{url}/api/v1") as api:
        form = {"grant_type": "client_credentials"}
        token = api.post("/auth/token", data=form, auth=credentials).json()["access_token"]
        user = api.put(
            "/users/external/realms%2Fshop%7C7",
            json={"email": "bob@example.com", "email_verified": True},
            headers={"Authorization": f"Bearer {token}"},
        )
    return str(user.json()["external_id"])


def test_shell_sessions_work_as_printed(tmp_path: Path) -> None:
    """The product puts a user, exchanges the id, and creates a code as the user."""
    with trusting_service(tmp_path / "data") as (service, variables):
        result = subprocess.run(  # noqa: S603 - our own guide
            ["/bin/sh", "-e", "-c", "\n".join(blocks("sh")[:3])],
            env=variables | {"API": f"{service.url}/api/v1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        slashes = put_encoded(service.url, variables)
    assert slashes == "realms/shop|7"
    assert '"external_id":"shop-1234"' in result.stdout
    assert '"status":"active"' in result.stdout
    assert '"email": "zoe@example.com"' in result.stdout


async def test_example_works_as_printed(tmp_path: Path) -> None:
    """A user of the shop gets a share link; the second request leads to the same account."""
    (example,) = blocks("python")
    (tmp_path / "shop.py").write_text(example)
    port = free_port()
    shop_url = f"http://127.0.0.1:{port}"
    trust = {"trusted_issuers": shop_url, "trusted_audience": "referral"}
    with trusting_service(tmp_path / "data", **trust) as (service, variables):
        shop = subprocess.Popen(  # noqa: ASYNC220, S603 - our own guide
            [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port),
             "--host", "127.0.0.1", "shop:app"],
            cwd=tmp_path,
            env=variables | {"REFERRAL_API": f"{service.url}/api/v1", "SHOP_URL": shop_url},
        )  # fmt: skip
        try:
            async with httpx.AsyncClient(base_url=shop_url, timeout=30) as user:

                async def is_up() -> bool:
                    try:
                        return (await user.get("/jwks.json")).is_success
                    except httpx.TransportError:
                        return False

                await wait_for_value(is_up, START_SECONDS)
                links = [(await user.get("/invite/7")).json()["share"] for _ in range(2)]
                lookup = f"{service.url}/api/v1/codes/lookup"
                found = await user.post(lookup, json={"email": "zoe@shop.example"})
        finally:
            shop.send_signal(signal.SIGTERM)
            shop.wait()
    assert "/r/" in links[0]
    assert found.json()["url"] == links[1] != links[0]

"""nginx with the documented configuration, in front of a service of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from referral.web.problem_types import all_problem_types
from referral.web.problems import title_of
from tests.support.nginx import LOG_NAME, run_nginx
from tests.support.service_process import free_port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of nginx."""
    return tmp_path_factory.mktemp("nginx") / "data"


@pytest.fixture(scope="module")
def nginx(folder: Path) -> Iterator[str]:
    """The URL of nginx; the service behind it does not run."""
    with run_nginx(folder, [free_port()]) as url:
        yield url


REJECTED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "a long query": (f"/api/v1/codes/lookup?email={'a' * 9_000}", {}, 414, "uri-too-long"),
    "a long header": ("/", {"headers": {"X-Long": "a" * 9_000}}, 431, "malformed-request"),
    "a long body": ("/", {"content": b"a" * 70_000}, 413, "content-too-large"),
    "no service": ("/", {}, 502, "unavailable"),
    "metrics": ("/metrics", {}, 404, "not-found"),
    "the location of these errors": ("/.problem", {}, 404, "not-found"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_errors_of_nginx_are_those_of_the_service(nginx: str, name: str) -> None:
    """Their type, code and title are in the service's catalogue, with the same status."""
    path, request, status, code = REJECTED[name]
    response = httpx.request("POST", f"{nginx}{path}", **request)
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"{nginx}/problems/{code}"
    assert problem["title"] == title_of(code)
    assert code in all_problem_types()
    assert problem["request_id"] == response.headers["X-Request-ID"]


def test_log_has_no_secret_of_a_request(nginx: str, folder: Path) -> None:
    """Codes, states, links of mails, cookies and addresses of pages are in none of its logs."""
    secret = "a-secret-of-this-request"
    headers = {
        "Referer": f"https://app.example.com/callback?code={secret}",
        "Authorization": f"Bearer {secret}",
        "Cookie": f"login={secret}",
        "User-Agent": secret,
    }
    for path in ("/oauth/authorize?state=", "/login?state=", "/confirm?token=", "/unsubscribe/"):
        response = httpx.get(f"{nginx}{path}{secret}", headers=headers)
        assert response.status_code == 502
        assert secret not in response.text or path == "/unsubscribe/"
    log = (folder / LOG_NAME).read_text()
    assert log.count('"status":502') >= 4
    assert secret not in log + (folder / "error.log").read_text()

"""Which integration tests are collected."""

import os

IS_ROOT = os.geteuid() == 0
NEEDS_ROOT = "test_os_users.py"
"""It runs commands as another user; `.ci/run` runs as root."""

collect_ignore = [] if IS_ROOT else [NEEDS_ROOT]


def pytest_report_collectionfinish() -> list[str]:
    """Report the tests that are left out."""
    return [] if IS_ROOT else [f"not root: tests/integration/{NEEDS_ROOT} is left out"]

"""The Kubernetes manifests beside what the image and the commands need.

`make test-clients` validates them against the schemas of Kubernetes.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from referral.adapters.security.keys import make_key_file
from referral.cli import main
from referral.settings import Settings, read_settings, unknown_settings
from tests.support.service_process import COMMAND, environment, run_command

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "docs/operations/kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]


def read_objects() -> dict[tuple[str, str], Any]:
    """Return the objects by kind and name."""
    files = sorted(MANIFESTS.glob("*.yaml"))
    documents = [
        document
        for file in files
        if file.name != "kustomization.yaml"
        for document in yaml.safe_load_all(file.read_text())
    ]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


OBJECTS = read_objects()
PODS = {
    name: document["spec"]["template"]["spec"]
    for (_, name), document in OBJECTS.items()
    if "template" in document.get("spec", {})
}
CONTAINERS = [
    container
    for pod in PODS.values()
    for container in pod["containers"] + pod.get("initContainers", [])
]
API = PODS["referral-api"]["containers"][0]


def instruction(name: str) -> str:
    """Return the argument of an instruction of the last stage of the Dockerfile."""
    found = re.search(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)
    assert found, name
    return found[1]


def mounts(container: dict[str, Any]) -> dict[str, bool]:
    """Return the folders that are mounted, and whether they are writable."""
    return {
        mount["mountPath"]: not mount.get("readOnly") for mount in container.get("volumeMounts", [])
    }


def test_kustomization_has_every_manifest() -> None:
    """A file that the kustomization does not name is never applied."""
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    files = {file.name for file in MANIFESTS.iterdir()}
    settings = kustomization["configMapGenerator"][0]["envs"]
    assert {*kustomization["resources"], *settings, "kustomization.yaml"} == files
    assert {container["image"] for container in CONTAINERS} == {kustomization["images"][0]["name"]}
    assert {kind for kind, _ in OBJECTS} == {
        *("Deployment", "Job", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Service"),
    }, "secrets are referred to, never a part of the manifests"


def test_pods_run_as_the_user_of_the_image_on_a_read_only_root() -> None:
    """Kubernetes' profile *restricted* for pods, with the user of the Dockerfile."""
    user, group = map(int, instruction("USER").split(":"))
    for pod in PODS.values():
        context = pod["securityContext"]
        ids = context["runAsUser"], context["runAsGroup"], context["fsGroup"]
        assert ids == (user, group, group)
        assert context["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        # Kubernetes would set REFERRAL_API_PORT and others for a service with that name.
        assert not pod["enableServiceLinks"]
    for container in CONTAINERS:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_folders_are_those_of_the_image_and_the_settings() -> None:
    """The API alone writes, to the data folder of the image; all read the signing key."""
    data_folder = re.search(r"REFERRAL_DATA_DIR=(\S+)", DOCKERFILE)
    assert data_folder
    key_folder = str(Path(container_settings()["REFERRAL_SIGNING_KEY_FILE"]).parent)
    assert mounts(API) == {data_folder[1]: True, key_folder: False}
    for name in ("referral-migration", "referral-worker"):
        assert mounts(PODS[name]["containers"][0]) == {key_folder: False}


def container_settings() -> dict[str, str]:
    """Return the settings of the config map."""
    lines = (MANIFESTS / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_settings_are_valid(tmp_path: Path) -> None:
    """The service accepts them, except for the key file, which is a secret."""
    settings = container_settings()
    assert unknown_settings(settings) == []
    make_key_file(tmp_path / "key.pem")
    key = {"REFERRAL_SIGNING_KEY_FILE": str(tmp_path / "key.pem")}
    assert isinstance(read_settings(settings | key), Settings)


def test_commands_and_their_options_exist() -> None:
    """Click parses the arguments of each container, without running it."""
    for pod in PODS.values():
        name, *options = pod["containers"][0]["args"]
        command = main.get_command(click.Context(main), name)
        assert command is not None
        command.make_context(name, options)


def test_probes_ask_routes_of_the_api_at_its_port() -> None:
    """The port is that of the image, the command, the probes and the service."""
    exposed = int(instruction("EXPOSE"))
    port = API["ports"][0]
    assert port == {"name": "http", "containerPort": exposed}
    assert API["args"][API["args"].index("--port") + 1] == str(exposed)
    assert OBJECTS["Service", "referral-api"]["spec"]["ports"][0]["targetPort"] == port["name"]
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert API[probe]["httpGet"]["path"] in paths
        assert API[probe]["httpGet"]["port"] == port["name"]


def test_pods_have_time_to_drain() -> None:
    """A pod is killed after its drain, 10 s for requests in flight and 6 s for jobs."""
    drain = int(API["args"][API["args"].index("--drain") + 1])
    assert drain > API["readinessProbe"]["periodSeconds"]
    assert PODS["referral-api"]["terminationGracePeriodSeconds"] >= drain + 10 + 6


@pytest.mark.parametrize("selected", ["api", "worker"])
def test_selectors_match_the_pods(selected: str) -> None:
    """Deployments, services, budgets and policies select pods by their component."""
    labels = {"app.kubernetes.io/component": selected}
    deployment = OBJECTS["Deployment", f"referral-{selected}"]["spec"]
    assert deployment["template"]["metadata"]["labels"] == labels
    assert deployment["selector"]["matchLabels"] == labels
    budget = OBJECTS["PodDisruptionBudget", f"referral-{selected}"]["spec"]
    assert budget["selector"]["matchLabels"] == labels


def test_migration_and_worker_need_no_writable_folder(database_url: str, tmp_path: Path) -> None:
    """Their pods have none."""
    make_key_file(tmp_path / "key.pem")
    settings = {"database_url": database_url, "signing_key_file": str(tmp_path / "key.pem")}
    settings |= {"smtp_url": "smtp://127.0.0.1:1", "log_format": "json"}
    missing = Path("/proc/referral")
    migrated = run_command(missing, "migrate", **settings)
    assert migrated.stdout == "The schema is up to date.\n", migrated.stderr
    worker = subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "worker"],
        env=environment(missing, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with worker:
        assert worker.stdout
        first = worker.stdout.readline()
        worker.terminate()
        output = first + worker.stdout.read()
    assert (json.loads(first)["event"], worker.returncode) == ("working", 0), output

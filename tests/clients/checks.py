"""The linters, generated clients and OAuth libraries: commands in the copy of a folder."""

from dataclasses import dataclass

Command = tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """Commands that succeed; `{url}` is the running service, `{client_id}` and `{client_secret}`
    are the credentials of one of its clients, `{public_client_id}` is one without a secret,
    `{root}` and `{python}` are this project and its interpreter.
    """

    folder: str
    commands: tuple[Command, ...]


DOCUMENT = "../openapi.json"
STRICT = ("mypy", "--strict", "--config-file=")
"""No configuration: mypy would read the one of the project."""

MANIFESTS = tuple(
    f"{{root}}/docs/operations/kubernetes/{name}.yaml"
    for name in ("namespace", "migration", "api", "worker", "network-policy")
)


def models(library: str, output: str) -> Check:
    """Return the check of datamodel-code-generator's models of a library."""
    folder = f"with_{library}"
    generate = (
        *("datamodel-codegen", "--input", DOCUMENT, "--input-file-type", "openapi"),
        *("--output", f"{folder}/models.py", "--output-model-type", output),
        *("--type-mappings", "string+password=string"),  # pydantic writes SecretStr as asterisks
        *("--use-annotated", "--formatters", "builtin", "--target-python-version", "3.11"),
    )
    check = ("env", f"MYPYPATH={folder}", *STRICT, "models_journey.py")
    walk = ("env", f"PYTHONPATH={folder}", "python", "models_journey.py", "{url}")
    return Check("python", (generate, check, walk))


CHECKS = {
    "redocly": Check(
        "typescript", (("redocly", "lint", "--config", "redocly-rules.yaml", DOCUMENT),)
    ),
    "spectral": Check(
        "typescript",
        (
            (
                "spectral",
                "lint",
                "--ruleset",
                "spectral-rules.yaml",
                "--fail-severity",
                "hint",
                DOCUMENT,
            ),
        ),
    ),
    "kubernetes": Check(".", (("kubernetes-validate", "--strict", *MANIFESTS),)),
    "openapi-fetch": Check(
        "typescript",
        (
            ("openapi-typescript", DOCUMENT, "--output", "generated/openapi-typescript.ts"),
            ("tsc", "--project", "tsconfig.json"),
            ("node", "compiled/openapi-fetch.js", "{url}"),
        ),
    ),
    "hey-api": Check(
        "typescript",
        (
            ("openapi-ts", "--input", DOCUMENT, "--output", "generated/hey-api", "--no-log-file"),
            ("tsc", "--project", "tsconfig.hey-api.json"),
            ("node", "compiled/hey-api.js"),
        ),
    ),
    "oauth": Check(
        "typescript",
        (
            ("tsc", "--project", "tsconfig.oauth.json"),
            ("node", "compiled/oauth.js", "{url}", "{client_id}", "{client_secret}"),
            (
                *("node", "compiled/oauth-code.js", "{url}"),
                *("{client_id}", "{client_secret}", "{public_client_id}"),
            ),
        ),
    ),
    "axe": Check(
        "typescript",
        (
            (
                *("env", "PYTHONPATH={root}/src:{root}", "{python}", "-m"),
                *("tests.clients.accessibility", "{url}", "node_modules/axe-core/axe.min.js"),
            ),
        ),
    ),
    "identity-provider": Check(
        "typescript",
        (
            (
                *("env", "PYTHONPATH={root}/src:{root}", "{python}", "-m"),
                "tests.clients.identity_provider",
            ),
        ),
    ),
    "webhooks": Check("typescript", (("node", "webhooks.mjs"),)),
    "openapi-generator": Check(
        "python",
        (
            (
                *("openapi-generator-cli", "generate", "--generator-name", "python"),
                *("--input-spec", DOCUMENT, "--output", "generated/openapi_generator"),
                *("--package-name", "referral_client"),
            ),
            # The strictest check that the generator's own files pass, by their pyproject.toml.
            # It also writes methods that send events, with invalid syntax, and never imports them.
            (
                *("env", "--chdir=generated/openapi_generator", "mypy"),
                *("--package", "referral_client", "--exclude", "event_types_api"),
            ),
            (*STRICT, "client_journey.py"),
            ("python", "client_journey.py"),
        ),
    ),
    "datamodel-msgspec": models("msgspec", "msgspec.Struct"),
    "datamodel-pydantic": models("pydantic", "pydantic_v2.BaseModel"),
}

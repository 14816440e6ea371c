"""Reading what `/metrics` tells."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """One answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        """Read it."""
        self.families = list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: str) -> float:
        """Add up the samples of a name that have these labels, among others."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


async def scrape(client: httpx.AsyncClient) -> Metrics:
    """Ask for the figures."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Metrics(answer.text)

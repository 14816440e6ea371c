"""A parser of the response of `/metrics`."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """One response of `/metrics`."""

    def __init__(self, text: str) -> None:
        """Parse the Prometheus text format."""
        self.families = list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and at least these labels."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


async def scrape(client: httpx.AsyncClient) -> Metrics:
    """Request `/metrics`."""
    response = await client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Metrics(response.text)

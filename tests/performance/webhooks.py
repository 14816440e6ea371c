"""The speed of webhooks: `python -m tests.performance.webhooks` prints the figures as JSON.

It measures the throughput of one worker with a backlog beside aiohttp alone, which posts the same
bodies signed in the same way to the same receiver; the worker's memory; and the time from commit to
a healthy receiver, and to the SMTP server, while ten other receivers are silent.
"""

import asyncio
import gc
import json
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.sharedctypes import Synchronized
from typing import cast

import uvloop
from aiohttp import ClientSession
from msgspec.structs import replace

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.keys import KeyRing
from referral.adapters.security.stored_secrets import AesGcmSecretCipher
from referral.core.policies.webhook_requests import encode_event, signature_headers
from referral.core.use_cases.webhook_sending import MAX_REQUESTS_PER_WEBHOOK
from referral.settings import Settings
from tests.performance.mail import open_database, running_worker, time_mails
from tests.support.http_receiver import http_receiver
from tests.support.process_stats import cpu_seconds, memory_usage
from tests.support.waiting import wait_until
from tests.support.webhook_rows import (
    SECRET,
    add_deliveries,
    add_events,
    add_webhook,
    make_events,
)
from tests.support.worker_process import temporary_settings

DELIVERIES = 10_000
ROUNDS = 3
"""Turns of aiohttp alone and of a worker with a backlog of so many deliveries."""

BATCH = 1000
WARM_UP = 500
DEAD_RECEIVERS = 10
TIMED = 200
PACE_SECONDS = 0.05


def main() -> None:
    """Run the benchmarks and print the figures as JSON."""
    with temporary_settings() as settings:
        local = replace(settings, webhook_networks=("127.0.0.0/8",))
        figures = measure_throughput(local)
    with temporary_settings() as settings:
        local = replace(settings, webhook_networks=("127.0.0.0/8",))
        figures |= asyncio.run(measure_beside_dead_receivers(local))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


@dataclass(frozen=True)
class CountingReceiver:
    """A receiver in a process of its own that counts requests."""

    url: str
    requests: "Synchronized[int]"


def measure_throughput(settings: Settings) -> dict[str, float]:
    """Measure aiohttp alone and the worker, in turns; return the medians."""
    alone, rounds = [], []
    with counting_receiver() as receiver:
        for _ in range(ROUNDS):
            alone.append(uvloop.run(post_alone(receiver.url)))
            uvloop.run(add_backlog(settings, receiver.url))
            rounds.append(measure_worker(settings, receiver))
        alone.append(uvloop.run(post_alone(receiver.url)))
    rate, limit = statistics.median(each.rate for each in rounds), statistics.median(alone)
    return {
        "deliveries per second": round(rate),
        "aiohttp alone, requests per second": round(limit),
        "aiohttp alone, slowest and fastest turn, share": round(min(alone) / max(alone), 2),
        "ratio": round(rate / limit, 2),
        "delivery, ms of the worker's core": round(
            statistics.median(each.cpu_ms for each in rounds), 3
        ),
        "worker's memory after half, MB": round(max(each.half_mb for each in rounds), 1),
        "worker's memory at the end, MB": round(max(each.end_mb for each in rounds), 1),
    }


@dataclass(frozen=True)
class WorkerRun:
    """The rate of a worker with a backlog, its CPU time per delivery, and its memory."""

    rate: float
    cpu_ms: float
    half_mb: float
    end_mb: float


def measure_worker(settings: Settings, receiver: CountingReceiver) -> WorkerRun:
    """Run a worker until it has sent the backlog; the first requests are not measured."""
    before = receiver.requests.value
    with running_worker(settings) as worker:
        process = worker.pid or 0
        wait_for(receiver, before + WARM_UP)
        warm, started, cpu = receiver.requests.value, time.perf_counter(), cpu_seconds(process)
        wait_for(receiver, before + DELIVERIES // 2)
        half = memory_usage(process).rss_mb
        wait_for(receiver, before + DELIVERIES)
        seconds, cpu = time.perf_counter() - started, cpu_seconds(process) - cpu
        deliveries = receiver.requests.value - warm
        return WorkerRun(
            deliveries / seconds, cpu * 1000 / deliveries, half, memory_usage(process).rss_mb
        )


async def post_alone(url: str) -> float:
    """Post signed events by aiohttp, as many at once as a webhook gets; return the rate."""
    bodies = iter(
        [
            (event.id, encode_event(event.id, event.type, event.occurred_at, event.data))
            for event in make_events(DELIVERIES)
        ]
    )

    async def post(session: ClientSession) -> None:
        for event_id, body in bodies:
            headers = signature_headers(event_id, datetime.now(UTC), body, [SECRET])
            headers["Content-Type"] = "application/json"
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()

    gc.collect()
    gc.freeze()  # as the worker does after its start
    async with ClientSession() as session:
        started = time.perf_counter()
        await asyncio.gather(*(post(session) for _ in range(MAX_REQUESTS_PER_WEBHOOK)))
    return DELIVERIES / (time.perf_counter() - started)


async def add_backlog(settings: Settings, url: str) -> None:
    """Store a webhook and its due deliveries."""
    async with open_database(settings) as database:
        webhook = await add_webhook(database, cipher_of(settings), url)
        for _ in range(DELIVERIES // BATCH):
            await add_deliveries(database, [webhook], BATCH)


async def measure_beside_dead_receivers(settings: Settings) -> dict[str, float]:
    """Measure single events and mails, first without and then with silent receivers."""
    idle = await time_mails(settings)
    figures = {f"{name}, no webhooks": value for name, value in idle.items()}
    async with (
        http_receiver() as healthy,
        http_receiver(silence) as silent,
        open_database(settings) as database,
    ):
        for _ in range(DEAD_RECEIVERS):
            await add_webhook(database, cipher_of(settings), silent.url())
        await add_webhook(database, cipher_of(settings), healthy.url())
        arrived: dict[str, float] = {}
        healthy.on_request = lambda request: arrived.setdefault(
            request.headers["webhook-id"], time.perf_counter()
        )
        with running_worker(settings):
            durations = await time_events(database, arrived)
        beside = await time_mails(settings, "beside")
    figures |= {f"{name}, beside silent receivers": value for name, value in beside.items()}
    figures |= {
        "commit to receiver beside ten silent ones, median ms": round(durations[TIMED // 2], 1),
        "commit to receiver beside ten silent ones, p95 ms": round(durations[int(TIMED * 0.95)], 1),
    }
    return figures


async def time_events(database: PostgresDatabase, arrived: dict[str, float]) -> list[float]:
    """Commit events at a pace; return the sorted times to their arrival, in ms."""
    committed: dict[str, float] = {}
    for _ in range(TIMED + 20):
        (event,) = await add_events(database, 1)
        committed[str(event.id)] = time.perf_counter()
        await asyncio.sleep(PACE_SECONDS)
    await wait_until(lambda: len(arrived) == len(committed))
    timed = list(committed)[20:]
    return sorted((arrived[each] - committed[each]) * 1000 for each in timed)


async def silence(_: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def cipher_of(settings: Settings) -> AesGcmSecretCipher:
    """Return the cipher of the service."""
    return AesGcmSecretCipher(KeyRing(settings.signing_key_files))


def wait_for(receiver: CountingReceiver, requests: int) -> None:
    """Wait until the receiver has had this number of requests."""
    while receiver.requests.value < requests:
        time.sleep(0.005)


@contextmanager
def counting_receiver() -> Iterator[CountingReceiver]:
    """Run a receiver that answers every request with 200."""
    requests = multiprocessing.Value("i", 0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_count, args=(listening, requests), daemon=True)
        process.start()
        try:
            port = listening.getsockname()[1]
            yield CountingReceiver(f"http://127.0.0.1:{port}/hook", requests)
        finally:
            process.terminate()
            process.join()


def _count(listening: socket.socket, requests: "Synchronized[int]") -> None:
    class Protocol(asyncio.Protocol):
        """Answers each request of a connection; bodies have a length."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport, self._received = cast("asyncio.Transport", transport), b""

        def data_received(self, data: bytes) -> None:
            self._received += data
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(rest) >= length:
                self._received = rest[length:]
                requests.value += 1
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Protocol, sock=listening)
        await server.serve_forever()

    uvloop.run(serve())


if __name__ == "__main__":
    main()

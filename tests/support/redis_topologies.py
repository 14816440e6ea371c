"""Redis servers that fail over: a primary with a replica and Sentinels, and a Cluster."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis import Redis

from tests.support.server_processes import RedisProcess
from tests.support.service_process import free_port
from tests.support.waiting import wait_until

PRIMARY_NAME = "referral"
SENTINEL_CONFIGURATION = """
sentinel monitor {name} 127.0.0.1 {port} 2
sentinel down-after-milliseconds {name} 300
sentinel failover-timeout {name} 2000
"""
CLUSTER_OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
SLOTS = 16384


@dataclass(frozen=True)
class SentinelServers:
    """A primary, its replica, and three Sentinels that promote the replica."""

    primary: RedisProcess
    replica: RedisProcess
    sentinels: list[RedisProcess]

    @property
    def url(self) -> str:
        """The URL of all Sentinels."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{PRIMARY_NAME}"


@contextmanager
def run_sentinels() -> Iterator[SentinelServers]:
    """Run the servers, and wait until all Sentinels know each other and the replica."""
    with ExitStack() as stack:
        primary, replica, *sentinels = (stack.enter_context(closing_process()) for _ in range(5))
        primary.start()
        replica.start("--replicaof", "127.0.0.1", str(primary.port))
        configuration = SENTINEL_CONFIGURATION.format(name=PRIMARY_NAME, port=primary.port)
        for sentinel in sentinels:
            sentinel.start_sentinel(configuration)
        for sentinel in sentinels:
            with Redis(port=sentinel.port, decode_responses=True) as client:
                _wait_for(partial(_knows_all, client))
        yield SentinelServers(primary, replica, sentinels)


@contextmanager
def run_cluster(nodes: int = 3) -> Iterator[list[RedisProcess]]:
    """Run a Cluster of primaries that share the slots equally."""
    with ExitStack() as stack:
        # The nodes talk to each other on ports that are 10,000 higher.
        processes = [stack.enter_context(closing_process(free_port())) for _ in range(nodes)]
        for number, process in enumerate(processes):
            process.start(*CLUSTER_OPTIONS)
            with Redis(port=process.port) as client:
                first, last = SLOTS * number // nodes, SLOTS * (number + 1) // nodes
                client.execute_command("CLUSTER ADDSLOTS", *range(first, last))
                client.execute_command("CLUSTER MEET", "127.0.0.1", processes[0].port)
        for process in processes:
            with Redis(port=process.port, decode_responses=True) as client:
                _wait_for(partial(_is_complete, client, nodes))
        yield processes


def move_slot(source: RedisProcess, target: RedisProcess, slot: int) -> None:
    """Move a slot with its keys from one node to another."""
    with Redis(port=source.port) as old, Redis(port=target.port) as new:
        old_id, new_id = (client.execute_command("CLUSTER MYID").decode() for client in (old, new))
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new_id)
        keys = old.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000)
        if keys:
            old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for client in (new, old):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", new_id)


@contextmanager
def closing_process(port: int | None = None) -> Iterator[RedisProcess]:
    """Make a process that is killed after the block."""
    process = RedisProcess(port)
    try:
        yield process
    finally:
        process.close()


def _wait_for(condition: Callable[[], object]) -> None:
    asyncio.run(wait_until(condition))


def _knows_all(sentinel: Any) -> bool:
    fields = sentinel.execute_command("SENTINEL MASTER", PRIMARY_NAME)
    return (fields["num-slaves"], fields["num-other-sentinels"]) == (1, 2)


def _is_complete(node: Any, nodes: int) -> bool:
    information = node.execute_command("CLUSTER INFO")
    is_complete: bool = information["cluster_known_nodes"] == str(nodes)
    return is_complete and information["cluster_state"] == "ok"

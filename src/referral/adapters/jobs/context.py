"""What goes along with a job, so that its lines and spans are found by the request that asked."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import structlog
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job
from structlog.contextvars import bind_contextvars, get_contextvars

from referral.adapters.observability.tracing import job_span, trace_headers

REQUEST_ID = "request_id"


def propagation_headers() -> dict[str, str] | None:
    """Return what a job that is queued now takes along: ids and nothing else."""
    request_id = get_contextvars().get(REQUEST_ID)
    return trace_headers() | ({REQUEST_ID: request_id} if request_id else {}) or None


@contextmanager
def observed_attempt(job: Job) -> Iterator[None]:
    """Log an attempt at a job, and see to it that what is logged from now on names its request.

    The worker gives each job a task of its own, so that nothing has to be unbound.
    """
    request_id = (job.headers or {}).get(REQUEST_ID)
    bind_contextvars(job=job.id, **({REQUEST_ID: request_id} if request_id else {}))
    started, outcome, cause = time.perf_counter(), "held", dict[str, str]()
    try:
        with job_span(job.entrypoint, job.headers or {}):
            yield
        outcome = "done"
    except RetryRequested as retry:
        outcome, cause = "again", {"cause": error_chain(retry.__cause__ or retry)}
        raise
    except asyncio.CancelledError:
        outcome = "dropped"
        raise
    except Exception as error:
        cause = {"cause": error_chain(error)}
        raise
    finally:
        ms = round((time.perf_counter() - started) * 1000, 2)
        structlog.get_logger().info(
            "job", kind=job.entrypoint, attempt=job.attempts, outcome=outcome, ms=ms, **cause
        )


def error_chain(error: BaseException) -> str:
    """Name an error and those that it came from by their types: a text may hold an address."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    names = [type(one).__name__ for one in chain]
    return " from ".join(name for name, _ in groupby(names))

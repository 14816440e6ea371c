"""The context of a job: the request id and trace of the request that queued it."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import structlog
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job
from structlog.contextvars import bind_contextvars

from referral.adapters.observability.logs import REQUEST_ID, current_request_id
from referral.adapters.observability.tracing import job_span, trace_headers


def propagation_headers() -> dict[str, str] | None:
    """Return the headers of a job that is queued now: the request id and the trace context."""
    request_id = current_request_id()
    return trace_headers() | ({REQUEST_ID: request_id} if request_id else {}) or None


@contextmanager
def observed_attempt(job: Job) -> Iterator[None]:
    """Trace and log one attempt at a job, and bind the ids of the job and its request to the log.

    The worker runs each job in a task of its own, so nothing has to be unbound.
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
    """Return the types of an error and of its causes; their texts may contain e-mail addresses."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    names = [type(one).__name__ for one in chain]
    return " from ".join(name for name, _ in groupby(names))

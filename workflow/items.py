"""Attempts at due items: timers, kept callbacks and parked failures have the same life.

An item that failed is put off by its backoff, and held after its last attempt: visible in `items`, tried again by
`retry`.

A function that ends its process leaves no failure behind. So an item that may have been at work when a process ended is
*claimed* before its function is called: its attempt is stored first, and the next process finds it counted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .environment import Environment, Fault
from .event import Timeout
from .options import Retry
from .protocols import WARNING

SUSPECT = Fault("Suspect", "", "its process may have ended while it was at work")
"""What is known of an item, or an event, that may have ended its process."""


def postpone(environment: Environment[Any, Any], item: Timeout, fault: Fault, retry: Retry, *, before: int = 0) -> None:
    """Put off an item that failed, by its backoff; hold it after the last attempt.

    `before` is how many attempts had failed already when the item was made.
    """
    tried = item.attempt + 1
    environment.metrics.count("workflow_errors_total", workflow=environment.workflow_name, kind=fault.type)
    _reschedule(
        environment, item, tried, fault, None if before + tried >= retry.max_attempts else before + tried, retry
    )


def claim(environment: Environment[Any, Any], item: Timeout, retry: Retry, *, before: int = 0) -> bool:
    """Count the attempt that is about to be made. False if there is none left: the item is held instead."""
    tried = item.attempt + 1
    if before + tried > retry.max_attempts:
        _reschedule(environment, item, item.attempt, SUSPECT, None, retry)
        return False
    delay = retry.delay(before + tried, environment.runtime.random)
    environment.adapters.timeout_store.reschedule(item.id, environment.now() + delay, tried, SUSPECT.type)
    return True


def _reschedule(
    environment: Environment[Any, Any], item: Timeout, tried: int, fault: Fault, backoff: int | None, retry: Retry
) -> None:
    """Make the item due after the backoff of that attempt; None holds it."""
    due_at: datetime | None = None
    if backoff is not None:
        due_at = environment.now() + retry.delay(backoff, environment.runtime.random)
    environment.logger.log(
        WARNING,
        "held" if due_at is None else "failed",
        kind=item.kind,
        name=item.name,
        run_id=item.run_id,
        attempt=tried,
        error=fault.type,
        place=fault.place,
    )
    environment.adapters.timeout_store.reschedule(item.id, due_at, tried, fault.type)

"""Which processes a definition needs, and what each of them does.

for each status with a step          consumer           a reader, `parallel_count` shards
for each status with timers          timeout-inserter   a reader
                                     timeout-consumer   a poller, as many shards as its timers ask for
for each status with a buffered
  callback                           callback-consumer  a reader
for each connector                   connector.NAME     a reader of its source
for each hook                        hook.NAME          a reader of the run-state topic
for the workflow                     delete             a reader of the run-state topic
                                     outbox, parked, schedule                pollers
                                     reconcile, retention, pause-retry       sweepers
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from .call import InHand
from .callback import CallbackHandler, Callbacks
from .commit import Committer
from .connector import ConnectorReader, ConnectorStep
from .consume import Duty, Handler, Reader
from .control import Control
from .definition import Blueprint
from .delete import PROCESS as DELETE
from .delete import CustomDelete, DeleteHandler
from .environment import Environment, Fault
from .event import Shard, Timeout, run_state_topic, status_topic
from .hook import HookHandler
from .options import PauseRetry, Settled
from .outbox import Outbox
from .parked import ParkedSource, Parking, Redo
from .pause_retry import PROCESS as PAUSE_RETRY
from .pause_retry import pause_retry
from .poll import Poller, Source
from .process import Process, role_name
from .protocols import Delivery
from .reconcile import PROCESS as RECONCILE
from .reconcile import Reconciler
from .retention import PROCESS as RETENTION
from .retention import Retention
from .schedule import Schedules
from .step import CircuitBreaker, Step, StepHandler
from .timeout import Timer, TimerInserter, TimerSource
from .trigger import Triggers

INSERTER = "timeout-inserter"


class Services(NamedTuple):
    """What the processes of one workflow work with, beside the environment."""

    committer: Committer
    in_hand: InHand
    triggers: Triggers[Any, Any]
    control: Control
    callbacks: Callbacks
    parking: Parking
    schedules: Schedules[Any, Any]


class Policies(NamedTuple):
    """What `build` was told about runs that ended or stopped."""

    retention: timedelta | None
    pause_retry: PauseRetry | None
    custom_delete: CustomDelete | None
    reconcile_after: float


class Roster:
    """Makes the processes of one workflow."""

    def __init__(
        self, environment: Environment[Any, Any], blueprint: Blueprint, services: Services, policies: Policies
    ) -> None:
        self._environment = environment
        self._blueprint = blueprint
        self._services = services
        self._policies = policies
        self._readers: dict[tuple[str, str], Reader] = {}
        self.breakers: dict[int, CircuitBreaker] = {}

    @property
    def readers(self) -> dict[tuple[str, str], Reader]:
        """A reader of each (topic, receiver's name) that the processes read."""
        return self._readers

    def processes(self) -> list[Process]:
        """All processes, in the order of the table above."""
        return [*self._of_statuses(), *self._of_names(), *self._of_workflow()]

    def _of_statuses(self) -> Iterator[Process]:
        blueprint = self._blueprint
        for step in blueprint.steps.values():
            yield from self._consumers(step)
        for timers in blueprint.timers.values():
            yield from self._timers(timers)
        for callback in blueprint.callbacks.values():
            if callback.buffered:
                handler = CallbackHandler(self._environment, self._services.callbacks, callback.status)
                yield from self._read(callback.status, "callback-consumer", handler, callback.options)

    def _consumers(self, step: Step) -> Iterator[Process]:
        breaker = CircuitBreaker(step.options.breaker, self._environment.clock)
        self.breakers[step.status] = breaker
        handler = StepHandler(self._environment, self._services.committer, step, self._services.in_hand, breaker)
        yield from self._read(step.status, "consumer", handler, step.options)

    def _timers(self, timers: Sequence[Timer]) -> Iterator[Process]:
        status, environment = timers[0].status, self._environment
        shards = max(timer.options.parallel_count for timer in timers)
        yield from self._inserter(timers)
        for index in range(1, shards + 1):
            shard = Shard(index, shards)
            make = partial(TimerSource, environment, self._services.committer, self._services.in_hand, timers, shard)
            yield self._process(status, "timeout-consumer", shard, partial(self._serve_timers, make, timers[0].options))

    def _serve_timers(self, make: Callable[[], TimerSource], options: Settled, duty: Duty) -> None:
        Poller(self._environment.clock, make(), options.batch, options.poll_interval).serve(duty)

    def _inserter(self, timers: Sequence[Timer]) -> Iterator[Process]:
        status, parking = timers[0].status, self._services.parking
        parked_as = f"{INSERTER}.{status}"

        def park(delivery: Delivery, fault: Fault) -> None:
            event = delivery.event
            parking.park(parked_as, f"{event.key}:{event.version}", fault, run_id=event.key)

        inserter = TimerInserter(self._environment, timers, self._services.in_hand, park)

        def again(item: Timeout, duty: Duty) -> Fault | None:
            record = self._environment.adapters.record_store.lookup([item.run_id])[0]
            if record is None or record.run_state.finished or record.status != status:
                return None  # the entry is over: it needs no timers
            return inserter.insert(record, duty)

        parking.register(parked_as, Redo(again, timers[0].options.retry))
        yield from self._read(status, INSERTER, inserter, timers[0].options)

    def _of_names(self) -> Iterator[Process]:
        services = self._services
        for connector in self._blueprint.connectors:
            yield from self._connector(connector)
        for hook in self._blueprint.hooks:
            handler = HookHandler(self._environment, hook, services.in_hand, services.parking)
            yield from self._read(0, hook.process, handler, hook.options)

    def _connector(self, step: ConnectorStep) -> Iterator[Process]:
        services, total = self._services, step.options.parallel_count
        for index in range(1, total + 1):
            shard = Shard(index, total)
            reader = ConnectorReader(
                self._environment,
                services.triggers,
                services.callbacks,
                services.in_hand,
                services.parking,
                step,
                shard,
            )
            yield self._process(0, step.process, shard, reader.serve)

    def _of_workflow(self) -> Iterator[Process]:
        environment, services, options = self._environment, self._services, self._blueprint.options
        delete = DeleteHandler(
            environment,
            services.committer,
            services.in_hand,
            services.parking,
            self._policies.custom_delete,
            options.retry,
        )
        yield from self._read(0, DELETE, delete, options)
        yield self._process(0, "outbox", Shard(), self._serve_outbox)
        buffered = [status for status, callback in self._blueprint.callbacks.items() if callback.buffered]
        parked = ParkedSource(environment, services.parking, services.callbacks, buffered)
        yield self._poll(0, "parked", parked, options, Shard())
        yield self._poll(0, "schedule", services.schedules, options, Shard())
        reconciler = Reconciler(environment, self._blueprint.processed, self._policies.reconcile_after)
        yield self._process(0, RECONCILE, Shard(), lambda duty: reconciler.sweeper().serve(duty))
        retention = Retention(environment, self._policies.retention, self._readers.keys())
        yield self._process(0, RETENTION, Shard(), lambda duty: retention.sweeper().serve(duty))
        if self._policies.pause_retry is not None:
            sweeper = pause_retry(environment, services.control, self._policies.pause_retry)
            yield self._process(0, PAUSE_RETRY, Shard(), sweeper.serve)

    def _serve_outbox(self, duty: Duty) -> None:
        outbox, options = Outbox(self._environment), self._blueprint.options
        try:
            Poller(self._environment.clock, outbox, options.batch, options.poll_interval).serve(duty)
        finally:
            outbox.close()

    def _read(self, status: int, process: str, handler: Handler, options: Settled) -> Iterator[Process]:
        """A process that reads a topic, for each shard. Status 0 with a process of the workflow: its run-state
        topic."""
        name = self._environment.workflow_name
        of_workflow = process == DELETE or process.startswith("hook.")
        topic = run_state_topic(name) if of_workflow else status_topic(name, status)
        total = 1 if of_workflow else options.parallel_count
        for index in range(1, total + 1):
            shard = Shard(index, total)
            reader = Reader(
                self._environment,
                self._services.committer,
                handler,
                topic=topic,
                name=process,
                shard=shard,
                batch=options.batch,
                poll_interval=options.poll_interval,
            )
            self._readers[topic, process] = reader
            yield self._process(status, process, shard, reader.serve)

    def _poll(self, status: int, process: str, source: Source[Any], options: Settled, shard: Shard) -> Process:
        poller = Poller(self._environment.clock, source, options.batch, options.poll_interval)
        return self._process(status, process, shard, poller.serve)

    def _process(self, status: int, process: str, shard: Shard, serve: Callable[[Duty], None]) -> Process:
        return Process(role_name(self._environment.workflow_name, status, process, shard), serve)

"""A built workflow: what its users call.

`Workflow` adds nothing to the modules before it: it puts their parts together, starts and stops them, and gives each of
their functions its public name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from datetime import datetime, timedelta
from types import TracebackType
from typing import Generic

from .await_status import await_status
from .call import InHand
from .callback import Callbacks
from .commit import Committer
from .control import Control
from .definition import Blueprint
from .diagram import diagram
from .environment import Environment
from .errors import InvalidInput, StopTimeout, WorkflowError
from .event import Timeout
from .options import STOP_TIMEOUT
from .parked import Parking
from .process import ProcessState, Runner
from .protocols import Adapters, Definition, definitions, direct_publish
from .record import Order, Page, RecordFilter, Transition
from .roster import Policies, Roster, Services
from .run import O, RunView, S
from .run_state import RunState
from .schedule import Plan, Schedules
from .trigger import Trigger, Triggers

HISTORY_PAGE = 1000

# `list` is a method of the class below.
Answers = list[str | WorkflowError]
Rows = list[Transition]


class Workflow(Generic[O, S]):
    """A workflow, bound to its adapters. Made by `Builder.build`. Thread-safe.

    Everything but `run` and `stop` works without them too: a process that only triggers or asks starts no thread.
    """

    def __init__(self, environment: Environment[O, S], blueprint: Blueprint, policies: Policies) -> None:
        self._environment = environment
        self._blueprint = blueprint
        committer = Committer(environment.adapters.record_store, environment.runtime, environment.logger)
        in_hand = InHand()
        triggers: Triggers[O, S] = Triggers(environment, committer)
        self._services = Services(
            committer=committer,
            in_hand=in_hand,
            triggers=triggers,
            control=Control(environment, committer, in_hand),
            callbacks=Callbacks(environment, committer, in_hand, blueprint.callbacks),
            parking=Parking(environment),
            schedules=Schedules(environment, triggers, blueprint.options.retry),
        )
        self._roster = Roster(environment, blueprint, self._services, policies)
        self._runner = Runner(environment, self._roster.processes())
        self._running = False

    @property
    def name(self) -> str:
        return self._environment.workflow_name

    @property
    def adapters(self) -> Adapters:
        """The set that this workflow was built on. Whoever made it closes it."""
        return self._environment.adapters

    @property
    def environment(self) -> Environment[O, S]:
        """What the parts of this workflow share: for tools that read its types, codec and graph."""
        return self._environment

    # --- serving ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start the processes of this workflow, and return. Raises `Unavailable` if the adapters do not answer."""
        if self._running:
            raise WorkflowError(f"workflow {self.name!r} is running already")
        self._introduce()
        self._services.committer.start(f"{self.name}-committer")
        self._runner.start()
        self._running = True

    def stop(self, timeout: float | None = STOP_TIMEOUT) -> None:
        """End the processes: what is in hand is finished and stored, nothing new is begun.

        Raises `StopTimeout` after `timeout` seconds (None: wait for ever); it names the functions that did not return.
        Calling it again waits for them again. In a forked child there is nothing to end: its parent has the threads.
        """
        if self._services.committer.forked:
            self._running = False
            return
        clock = self._environment.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        alive = self._runner.stop(deadline)
        if alive:
            raise StopTimeout(self.name, self._services.in_hand.labels() or alive, timeout or 0.0)
        self._services.committer.stop(None if deadline is None else max(0.0, deadline - clock.monotonic()))
        self._running = False

    def __enter__(self) -> Workflow[O, S]:
        self.run()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def states(self) -> dict[str, ProcessState]:
        """Each role of this workflow, and whether this instance waits for it, runs it, or has stopped."""
        return self._runner.states()

    def _introduce(self) -> None:
        """Tell the adapters who is here, before anything is consumed: each new receiver keeps events from now on."""
        publisher = direct_publish(self.adapters.record_store)
        if publisher is not None:
            publisher.bind(self.name, self.adapters.event_streamer)
        keeper = definitions(self.adapters.record_store)
        if keeper is not None:
            keeper.announce(self.definition())
        known = {(receiver.topic, receiver.name) for receiver in self.adapters.event_streamer.receivers()}
        for key, reader in self._roster.readers.items():
            if key not in known:
                reader.open().close()

    def definition(self) -> Definition:
        """The workflow as tools see it that do not have its code."""
        blueprint = self._blueprint
        return Definition(
            workflow_name=self.name,
            fingerprint=blueprint.fingerprint,
            start=blueprint.graph.start,
            edges={origin: tuple(sorted(targets)) for origin, targets in blueprint.graph.edges.items()},
            names=dict(blueprint.graph.names),
            last_seen=self._environment.now(),
            processed=tuple(sorted(blueprint.processed)),
        )

    # --- runs ------------------------------------------------------------------------------------------------------

    def trigger(
        self,
        foreign_id: str,
        *,
        initial_value: O | None = None,
        start_at: S | None = None,
        idempotency_key: str = "",
        delay: timedelta | float | None = None,
        by: str = "",
        reason: str = "",
    ) -> str:
        """Start a run of `foreign_id` and return its id.

        Without an `initial_value` the object type's own defaults are used. A key seen before answers with the run that
        it started. Raises `RunInProgress` if the foreign id has an active run.
        """
        return self._services.triggers.start(
            Trigger(foreign_id, initial_value, start_at, idempotency_key, delay, by, reason)
        )

    def trigger_many(self, requests: Sequence[Trigger[O, S]]) -> Answers:
        """Start many runs, with one transaction for each few hundred; one answer each: the id, or why it has none."""
        return self._services.triggers.start_many(requests)

    def await_status(
        self, foreign_id: str, run_id: str, status: S, *, timeout: float | None, poll_interval: float | None = None
    ) -> RunView[O, S]:
        """Wait until the run is, or was, in `status`; returns the run as it is then.

        `timeout` is in seconds, None waits for ever; `AwaitTimeout` (a TimeoutError) tells that it is over.
        Raises `StatusUnreachable` once the run can never get there, `RunNotFound` for an unknown one. A paused run
        waits.
        """
        return await_status(
            self._environment, foreign_id, run_id, int(status), timeout=timeout, poll_interval=poll_interval
        )

    def callback(
        self,
        foreign_id: str,
        status: S,
        payload: bytes = b"",
        *,
        run_id: str | None = None,
        idempotency_key: str = "",
        by: str = "",
        reason: str = "",
    ) -> bool:
        """Call the function that was declared with `callback` for `status`, on the active run of `foreign_id`.

        True: it took effect, now or when the same key came before, or it is kept for later (`buffer=True`). False: the
        run is not in that status. Raises `RunPaused`, `RunNotFound` without an active run, and what the function
        raises.
        """
        return self._services.callbacks.deliver(
            foreign_id,
            int(status),
            payload,
            run_id=run_id,
            idempotency_key=idempotency_key,
            by=by,
            reason=reason,
        )

    def schedule(
        self,
        foreign_id: str,
        spec: str,
        *,
        initial_value: O | None = None,
        filter: Callable[[datetime], bool] | None = None,
        catch_up: bool = False,
        zone: str = "UTC",
    ) -> None:
        """Trigger `foreign_id` at each slot of the cron `spec`, in the time zone `zone`; replaces its former schedule.

        `filter` is asked for each slot. A slot that meets an active run is skipped; with `catch_up` it waits for that
        run's end, and slots that passed while no process ran are made up.
        """
        value = initial_value if initial_value is not None else self._environment.object_type()
        plan = Plan(
            foreign_id, " ".join(spec.split()), zone, self._environment.encode(value), catch_up, filter is not None
        )
        self._services.schedules.set(plan, filter)

    # --- operating -------------------------------------------------------------------------------------------------

    def pause(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        """Stop a running run until somebody resumes it. Raises `IllegalRunState` if it is not running."""
        self._services.control.pause(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def resume(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        """Have a paused run go on, with a fresh count of attempts."""
        self._services.control.resume(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def cancel(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        """End an active run where it is."""
        self._services.control.cancel(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def delete_data(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        """Ask for the data of a finished run to be deleted; the delete process does it."""
        self._services.control.delete_data(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def items(self, run_id: str | None = None, *, after: str = "", limit: int = 100) -> Page[Timeout]:
        """What is due later or held: timers, kept callbacks, parked failures, schedules; of one run, or of all, by
        page."""
        return self._services.control.items(run_id, after, limit)

    def retry(self, name: str, *, by: str = "", reason: str = "") -> None:
        """Make an item (by its id), or a run that waits for a retry (by its run id), due now."""
        self._services.control.retry(name, by=by, reason=reason)

    # --- asking ----------------------------------------------------------------------------------------------------

    def get(self, run_id: str) -> RunView[O, S]:
        """The run as it is now. Raises `RunNotFound`."""
        return self._environment.view(self._services.control.load(run_id))

    def latest(self, foreign_id: str) -> RunView[O, S] | None:
        """The run of this foreign id that was started last, None if there was none."""
        record = self.adapters.record_store.latest(self.name, foreign_id)
        return None if record is None else self._environment.view(record)

    def list(
        self,
        *,
        after: str = "",
        limit: int = 25,
        order: Order = Order.ASCENDING,
        statuses: Set[S] | None = None,
        run_states: Set[RunState] | None = None,
        foreign_id: str | None = None,
        by: str | None = None,
    ) -> Page[RunView[O, S]]:
        """A page of runs, by creation. Its `next` is the `after` of the page that follows, empty at the end."""
        if limit < 1:
            raise InvalidInput(f"limit={limit}: it is 1 or more")
        where = RecordFilter(
            statuses=None if statuses is None else frozenset(int(status) for status in statuses),
            run_states=None if run_states is None else frozenset(run_states),
            foreign_id=foreign_id,
            by=by,
        )
        page = self.adapters.record_store.list(self.name, after=after, limit=limit, order=order, where=where)
        return Page(tuple(self._environment.view(record) for record in page.items), page.next)

    def history(self, run_id: str) -> Rows:
        """All that happened to the run, oldest first."""
        self._services.control.load(run_id)
        rows: Rows = []
        while True:
            after = rows[-1].version if rows else 0
            page = self.adapters.record_store.history(run_id, after_version=after, limit=HISTORY_PAGE)
            rows.extend(page)
            if len(page) < HISTORY_PAGE:
                return rows

    def diagram(self) -> str:
        """The graph as a Mermaid state diagram, its edges labelled with the functions that take them."""
        return diagram(self._blueprint.graph, self._blueprint.labels())

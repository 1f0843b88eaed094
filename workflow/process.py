"""The runner: gives each process its role and its thread, and keeps it going.

    await the role ─► serve ─► stop, lost or wanted: release, and await it again
                        │
                        └─ an adapter fails: backoff, serve again; after repeated failures release the role, so that an
                           instance whose adapters work can have it

A process never ends by an error of its own or of its adapters. One that gave its role up waits before it competes
again, and then gives it up at the first failure and waits longer, until it has done some work: so the role is mostly
with an instance that can work, and runs are not handed to and fro between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from .cancel import CancelToken
from .clock import Task
from .consume import Duty
from .environment import Environment, frames_of
from .errors import Cancelled, Closed
from .event import Shard
from .options import FAILURES_BEFORE_HANDOVER, INFRASTRUCTURE_RETRY
from .protocols import ERROR, Lease


class ProcessState(Enum):
    """Where a process stands."""

    WAITING = "waiting"
    """For its role."""
    RUNNING = "running"
    STOPPED = "stopped"


class Process(NamedTuple):
    """A role, and the work that its holder does."""

    role: str
    serve: Callable[[Duty], None]
    """Works until `duty.idle` fires, which raises `Cancelled`."""


def role_name(workflow_name: str, status: int, process: str, shard: Shard) -> str:
    """The role's name: the same on every instance. Status 0 where a process has none."""
    return f"{workflow_name}-{status}-{process}-{shard.index}-of-{shard.total}"


class Runner:
    """Runs the processes of one workflow, each on its own thread."""

    def __init__(self, environment: Environment[Any, Any], processes: Sequence[Process]) -> None:
        self._environment = environment
        self._processes = processes
        self._stop = CancelToken()
        self._tasks: list[Task] = []
        self._states = {process.role: ProcessState.STOPPED for process in processes}

    def states(self) -> dict[str, ProcessState]:
        """Each role and where its process stands."""
        return dict(self._states)

    def start(self) -> None:
        """Start a thread for each process."""
        self._stop = CancelToken()
        for process in self._processes:
            self._states[process.role] = ProcessState.WAITING
        self._tasks = [self._start(process) for process in self._processes]

    def _start(self, process: Process) -> Task:
        return self._environment.runtime.spawn(process.role, lambda: _Shift(self, process).run())

    def stop(self, deadline: float | None) -> list[str]:
        """Tell all to end, and wait until `deadline` (monotonic). Returns the roles whose threads have not ended."""
        self._stop.cancel("stop")
        clock = self._environment.clock
        alive = [
            task.name
            for task in self._tasks
            if not task.join(None if deadline is None else max(0.0, deadline - clock.monotonic()))
        ]
        self._tasks = [task for task in self._tasks if task.name in alive]
        return alive

    @property
    def environment(self) -> Environment[Any, Any]:
        return self._environment

    @property
    def stopping(self) -> CancelToken:
        return self._stop

    def note(self, role: str, state: ProcessState) -> None:
        """Take down where a process stands."""
        self._states[role] = state


class _Shift:
    """One process on its thread, from start to stop."""

    def __init__(self, runner: Runner, process: Process) -> None:
        self._runner = runner
        self._environment = runner.environment
        self._process = process
        self._stop = runner.stopping
        self._failures = 0

    def run(self) -> None:
        role = self._process.role
        try:
            while not self._stop.cancelled:
                self._runner.note(role, ProcessState.WAITING)
                self._turn()
        except Cancelled:
            return
        finally:
            self._runner.note(role, ProcessState.STOPPED)

    def _turn(self) -> None:
        """Get the role, and serve until it goes."""
        try:
            lease = self._environment.adapters.role_scheduler.await_role(self._process.role, self._stop)
        except (Cancelled, Closed):
            raise Cancelled("no role") from None
        except Exception as error:
            self._failed(error)
            self._pause(self._stop)
            return
        with lease:
            self._runner.note(self._process.role, ProcessState.RUNNING)
            gave_up = not self._serve(lease)
        if gave_up:
            self._runner.note(self._process.role, ProcessState.WAITING)
            self._pause(self._stop)

    def _serve(self, lease: Lease) -> bool:
        """Serve while the role is ours. False if it is given up because of failures."""
        with (
            CancelToken.child_of(self._stop, lease.lost) as work,
            CancelToken.child_of(self._stop, lease.lost, lease.wanted) as idle,
        ):
            duty = Duty(idle, work, lease.lost, self._progressed)
            while not idle.cancelled:
                try:
                    self._process.serve(duty)
                except Cancelled:
                    return True
                except SystemExit as error:  # the user's function ended its thread: as if the process had ended
                    self._failed(error)
                    return False
                except Exception as error:
                    self._failed(error)
                    if self._failures >= FAILURES_BEFORE_HANDOVER:
                        return False
                    self._pause(idle)
            return True

    def _progressed(self) -> None:
        self._failures = 0

    def _pause(self, cancel: CancelToken) -> None:
        delay = INFRASTRUCTURE_RETRY.delay(max(1, self._failures), self._environment.runtime.random)
        try:
            self._environment.clock.signal().wait(cancel, delay.total_seconds())
        except Cancelled:
            return  # whoever asked for the pause looks at the token

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        environment, role = self._environment, self._process.role
        environment.metrics.count("workflow_process_failures_total", workflow=environment.workflow_name, role=role)
        environment.logger.log(
            ERROR,
            "process failed",
            role=role,
            failures=self._failures,
            error=type(error).__name__,
            frames=frames_of(error),
        )

"""Every error that this library raises, in one hierarchy under `WorkflowError`.

The tree tells whose move it is:

- *the definition is wrong*: `DefinitionError`, raised once by `build`, lists every problem;
- *the call is wrong*: `InvalidInput` and its kin; nothing was written;
- *somebody else was first*: the `Refusal`s, which a record store returns for one change of a batch and the engine
  raises to its caller;
- *the world is wrong*: `Unavailable` (outcome unknown, calling again is safe), `Rejected` (would fail on a healthy
  backend too), `Closed`, `Cancelled`.

A message says what happened, to which run, and what to do. It carries ids and names, never the user's object.
"""

from __future__ import annotations

from collections.abc import Sequence


class WorkflowError(Exception):
    """Base of everything raised here: catch it to catch all of them."""


# --- the definition is wrong ---------------------------------------------------------------------------------------


class DefinitionError(WorkflowError):
    """A workflow's definition cannot be built. `problems` has one readable line for each thing that is wrong."""

    def __init__(self, workflow_name: str, problems: Sequence[str]) -> None:
        self.workflow_name = workflow_name
        self.problems = tuple(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"workflow {workflow_name!r} cannot be built:\n{listed}")


# --- the call is wrong ---------------------------------------------------------------------------------------------


class InvalidInput(WorkflowError, ValueError):
    """An argument cannot be used: a bad name, foreign id, instant, limit or specification. Nothing was written."""


class InvalidCursor(InvalidInput):
    """A page's cursor was not made by this store's `list`. Start again without one."""


class CodecError(WorkflowError, ValueError):
    """A value cannot be written to bytes or read from them. `path` names the place, as in `order.items[2].price`."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class RunNotFound(WorkflowError, LookupError):
    """No such run, or no active run of that foreign id."""


class RunPaused(WorkflowError):
    """The run is paused and this callback keeps nothing for later: resume the run, or declare `buffer=True`."""


class IllegalRunState(WorkflowError):
    """The run's state does not allow the action, as in resuming a run that is not paused."""


class UndeclaredAnswer(WorkflowError):
    """A function answered with something that is neither one of its declared statuses nor an `Outcome`."""


class StatusUnreachable(WorkflowError):
    """The awaited status was never reached, and no path leads to it from where the run is."""


class AwaitTimeout(WorkflowError, TimeoutError):
    """The awaited status was not reached in the given time. The run goes on."""


class MissingExtra(WorkflowError, ImportError):
    """An adapter needs a package that is not installed. The message has the command to type."""


# --- somebody else was first ---------------------------------------------------------------------------------------


class Refusal(WorkflowError):
    """Why a record store did not accept one change. It is returned for that change alone; the others stand."""


class StaleRecord(Refusal):
    """The change was made on a version that is no longer the current one: another writer won. Load and decide again."""

    def __init__(self, run_id: str, version: int, current: int) -> None:
        self.run_id = run_id
        self.version = version
        self.current = current
        super().__init__(f"run {run_id}: version {version} was refused, the record is at version {current}")


class RunInProgress(Refusal):
    """The foreign id has an active run already: `run_id`."""

    def __init__(self, workflow_name: str, foreign_id: str, run_id: str) -> None:
        self.workflow_name = workflow_name
        self.foreign_id = foreign_id
        self.run_id = run_id
        super().__init__(
            f"workflow {workflow_name!r} has an active run of {foreign_id!r} already: {run_id}; "
            "wait for its end, cancel it, or trigger under another foreign id"
        )


class AlreadyApplied(Refusal):
    """This cause took effect before, on `run_id`. Nothing was done again."""

    def __init__(self, cause: str, run_id: str) -> None:
        self.cause = cause
        self.run_id = run_id
        super().__init__(f"the cause {cause!r} took effect before, on run {run_id}")


class Rejected(Refusal):
    """The backend can never store this, however healthy it is: too large, or not storable."""


# --- the world is wrong --------------------------------------------------------------------------------------------


class Unavailable(WorkflowError):
    """The backend failed and whether the call took effect is unknown. Making the same call again is safe."""


class BrokenAdapter(Unavailable):
    """An adapter raised what its contract does not know. Whether the call took effect is unknown."""


class StoreVersionError(WorkflowError):
    """The store is of a newer version than this code, or is no store of ours. Nothing was changed."""


class Closed(WorkflowError):
    """The adapter, receiver or engine was closed before this call."""


class Forked(Closed):
    """An adapter opened before `fork()` was used in the child. Open a new one there."""


class Cancelled(WorkflowError):
    """A wait was ended by its cancel token."""


class StopTimeout(WorkflowError, TimeoutError):
    """`stop` gave up waiting. `pending` names the functions that did not return; their threads are still alive."""

    def __init__(self, workflow_name: str, pending: Sequence[str], timeout: float) -> None:
        self.workflow_name = workflow_name
        self.pending = tuple(pending)
        listed = ", ".join(self.pending)
        super().__init__(f"workflow {workflow_name!r} did not stop within {timeout:g} s: still in {listed}")

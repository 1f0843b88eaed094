"""A workflow without its code: what tools see of the runs in a store, and do to them.

Whoever serves a workflow announces its definition (`protocols.Definition`), and a record store that can, keeps it. From
that a `Console` knows the graph and the names of statuses; the user's object it can only show as JSON, if it is that.

    for definition in workflows(adapters):
        console = Console(adapters, definition.workflow_name)
        for record in console.list(limit=10).items:
            print(record.foreign_id, console.status_name(record.status))

Actions go through `Control`, as those of `Workflow` do, so they obey the same rules and leave the same history.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum
from typing import Any, cast

from .call import InHand
from .clock import Clock, Numbered, runtime_with
from .commit import Committer
from .control import Control
from .diagram import diagram
from .environment import Environment
from .errors import InvalidInput, RunNotFound, WorkflowError
from .event import Timeout
from .graph import Graph
from .protocols import ANY_RECORD, Adapters, Definition, NoMetrics, NoTracer, StandardLogger, counts, definitions
from .record import Order, Page, Record, RecordFilter, Transition
from .run_state import RunState

PAGE = 500


def _announced(adapters: Adapters) -> Sequence[Definition]:
    """All definitions in the store, the last seen ones last."""
    keeper = definitions(adapters.record_store)
    if keeper is None:
        kind = type(adapters.record_store).__name__
        raise WorkflowError(f"{kind} keeps no definitions of workflows, so tools cannot work on it without their code")
    return sorted(keeper.definitions(), key=lambda definition: definition.last_seen)


def workflows(adapters: Adapters) -> list[Definition]:
    """The newest definition of each workflow that was ever served on this store, by name."""
    newest = {definition.workflow_name: definition for definition in _announced(adapters)}
    return [newest[name] for name in sorted(newest)]


def console_of(adapters: Adapters, run_id: str, *, clock: Clock | None = None) -> Console:
    """The console of the workflow that has this run. Raises `RunNotFound`."""
    record = adapters.record_store.lookup([run_id])[0]
    if record is None:
        raise RunNotFound(f"no workflow in this store has a run {run_id}")
    return Console(adapters, record.workflow_name, clock=clock)


class Console:
    """One workflow, as the definition in the store has it. Thread-safe."""

    def __init__(self, adapters: Adapters, workflow_name: str, *, clock: Clock | None = None) -> None:
        known = _announced(adapters)
        mine = [definition for definition in known if definition.workflow_name == workflow_name]
        if not mine:
            served = ", ".join(sorted({definition.workflow_name for definition in known})) or "none"
            raise InvalidInput(
                f"no workflow {workflow_name!r} was ever served on this store; those that were: {served}"
            )
        self.definition = mine[-1]
        self.graph = _graph(mine)
        self._environment = _environment(adapters, self.definition, self.graph, clock)
        store, runtime, logger = adapters.record_store, self._environment.runtime, self._environment.logger
        self._control = Control(self._environment, Committer(store, runtime, logger), InHand())

    @property
    def name(self) -> str:
        return self.definition.workflow_name

    @property
    def adapters(self) -> Adapters:
        return self._environment.adapters

    # --- what it is made of ----------------------------------------------------------------------------------------

    def status_name(self, status: int) -> str:
        """The status's name, of an older definition if only that has it; else its number."""
        return self.graph.name(status)

    def status_named(self, text: str) -> int:
        """The number of the status with this name, in any case, or with this number. Raises `InvalidInput`."""
        for status, name in self.graph.names.items():
            if text.casefold() == name.casefold() or text == str(status):
                return status
        names = ", ".join(self.graph.names.values())
        raise InvalidInput(f"workflow {self.name!r} has no status {text!r}; it has {names}")

    def diagram(self) -> str:
        """The graph as a Mermaid state diagram."""
        return diagram(self.graph)

    # --- asking ----------------------------------------------------------------------------------------------------

    def get(self, run_id: str) -> Record:
        """The run as it is now. Raises `RunNotFound`."""
        return self._control.load(run_id)

    def latest(self, foreign_id: str) -> Record | None:
        """The run of this foreign id that was started last, None if there was none."""
        return self.adapters.record_store.latest(self.name, foreign_id)

    def list(
        self,
        *,
        after: str = "",
        limit: int = 25,
        order: Order = Order.DESCENDING,
        where: RecordFilter = ANY_RECORD,
    ) -> Page[Record]:
        """A page of runs, the newest first; its `next` is the `after` of the page that follows."""
        return self.adapters.record_store.list(self.name, after=after, limit=limit, order=order, where=where)

    def each(self, *, order: Order = Order.DESCENDING, where: RecordFilter = ANY_RECORD) -> Iterator[Record]:
        """All runs, read page by page."""
        cursor, more = "", True
        while more:
            page = self.list(after=cursor, limit=PAGE, order=order, where=where)
            yield from page.items
            cursor, more = page.next, bool(page.next)

    def counts(self) -> Mapping[tuple[int, RunState], int]:
        """How many runs are in each status and run state. Cheap where the store counts, else all are read."""
        counter = counts(self.adapters.record_store)
        if counter is not None:
            return counter.counts(self.name)
        return Counter((record.status, record.run_state) for record in self.each())

    def history(self, run_id: str, *, after_version: int = 0) -> Iterator[Transition]:
        """All that happened to the run after that version, oldest first."""
        while True:
            page = self.adapters.record_store.history(run_id, after_version=after_version, limit=PAGE)
            yield from page
            if len(page) < PAGE:
                return
            after_version = page[-1].version

    def items(self, run_id: str | None = None, *, after: str = "", limit: int = 100) -> Page[Timeout]:
        """What is due later or held: of one run, or a page of all."""
        return self._control.items(run_id, after, limit)

    # --- operating -------------------------------------------------------------------------------------------------

    def pause(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        """As `Workflow.pause`; the same for those below."""
        self._control.pause(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def resume(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        self._control.resume(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def cancel(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        self._control.cancel(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def delete_data(self, run_id: str, *, reason: str = "", by: str = "", idempotency_key: str = "") -> None:
        self._control.delete_data(run_id, reason=reason, by=by, idempotency_key=idempotency_key)

    def retry(self, name: str, *, by: str = "", reason: str = "") -> None:
        self._control.retry(name, by=by, reason=reason)

    # --- for machines ----------------------------------------------------------------------------------------------

    def plain(self, row: Record | Transition | Timeout) -> dict[str, Any]:
        """All fields of the row as JSON has values, its status by number and name, its bytes by `content`."""
        values = {field.name: _plain(getattr(row, field.name)) for field in dataclasses.fields(row)}
        values["status_name"] = self.status_name(row.status)
        return values


def content(data: bytes) -> object:
    """What bytes hold: the value, if they are JSON, else only their length. Empty ones are None."""
    if not data:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return {"bytes": len(data)}


def _plain(value: object) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return content(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(cast("Mapping[str, str]", value)) if isinstance(value, Mapping) else value


# --- what the engine needs in place of the user's code -------------------------------------------------------------


def _graph(known: Sequence[Definition]) -> Graph:
    """The graph of the last of these definitions; statuses that only older ones have keep their names."""
    newest = known[-1]
    names = {status: name for definition in known for status, name in definition.names.items()}
    edges = [(origin, target) for origin, targets in newest.edges.items() for target in targets]
    return Graph.of(newest.start, edges, dict(sorted(names.items())))


@dataclass(frozen=True)
class _Bytes:
    """A codec for objects that stay bytes."""

    def check(self, kind: Any) -> Sequence[str]:
        return []

    def encode(self, kind: Any, value: bytes, carry: object = None) -> bytes:
        return value

    def decode(self, kind: Any, data: bytes) -> tuple[bytes, object]:
        return data, None


def _environment(
    adapters: Adapters, definition: Definition, graph: Graph, clock: Clock | None
) -> Environment[bytes, Any]:
    make_enum: Any = IntEnum
    runtime = runtime_with(clock)
    return Environment(
        workflow_name=definition.workflow_name,
        object_type=bytes,
        status_type=make_enum("Status", {name: status for status, name in definition.names.items()}),
        graph=graph,
        adapters=adapters,
        codec=_Bytes(),
        runtime=runtime,
        logger=StandardLogger(),
        metrics=NoMetrics(),
        tracer=NoTracer(),
        instance="console",
        new_write_id=Numbered(runtime.new_id()),
    )

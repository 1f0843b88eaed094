"""The console: a workflow seen and steered through what the store has of it, without its code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from workflow import (
    Adapters,
    Builder,
    IllegalRunState,
    InvalidInput,
    Run,
    RunNotFound,
    RunState,
    Workflow,
    WorkflowError,
    memory,
    sqlite,
)
from workflow import Order as Direction
from workflow.console import Console, console_of, content, workflows
from workflow.protocols import Definition, definitions
from workflow.record import RecordFilter

DEADLINE = 20.0


class Status(IntEnum):
    NEW = 1
    PAID = 2
    DONE = 3


@dataclass
class Order:
    amount: int = 0


def order_workflow(adapters: Adapters, name: str = "orders") -> Workflow[Order, Status]:
    builder = Builder(name, Order, Status)

    @builder.step(Status.NEW)
    def pay(run: Run[Order, Status]) -> Literal[Status.PAID]:
        return Status.PAID

    @builder.step(Status.PAID)
    def send(run: Run[Order, Status]) -> Literal[Status.DONE]:
        return Status.DONE

    return builder.build(adapters)


@pytest.fixture(params=["memory", "sqlite"])
def adapters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapters]:
    made = memory() if request.param == "memory" else sqlite(tmp_path / "store.db")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def served(adapters: Adapters) -> Workflow[Order, Status]:
    """A workflow that was served once, with a run that is done, `a`, and one that waits, `b`."""
    workflow = order_workflow(adapters)
    with workflow:
        run_id = workflow.trigger("a", initial_value=Order(5))
        workflow.await_status("a", run_id, Status.DONE, timeout=DEADLINE)
    workflow.trigger("b", initial_value=Order(7), delay=timedelta(hours=1))
    return workflow


@pytest.fixture
def console(adapters: Adapters, served: Workflow[Order, Status]) -> Console:
    return Console(adapters, "orders")


def run_id_of(console: Console, foreign_id: str) -> str:
    record = console.latest(foreign_id)
    assert record is not None
    return record.run_id


# --- the definition -------------------------------------------------------------------------------------------------


def test_it_knows_names_and_graph(console: Console) -> None:
    assert (console.name, console.definition.workflow_name) == ("orders", "orders")
    assert [console.status_name(number) for number in (1, 2, 3, 4)] == ["NEW", "PAID", "DONE", "4"]
    assert console.status_named("paid") == console.status_named("2") == 2
    assert console.graph.terminals == {3}
    assert "NEW --> PAID\n" in console.diagram()
    with pytest.raises(InvalidInput, match="'LOST'; it has NEW, PAID, DONE"):
        console.status_named("LOST")


def test_an_unknown_workflow_is_told_with_those_that_are_known(console: Console) -> None:
    with pytest.raises(InvalidInput, match=r"no workflow 'nothing' was ever served .* those that were: orders"):
        Console(console.adapters, "nothing")


def test_a_store_without_definitions_is_told() -> None:
    made = memory()

    class Plain:
        """A record store that keeps no definitions."""

        capabilities = frozenset[str]()

        def __getattr__(self, name: str) -> Any:
            return getattr(made.record_store, name)

    with pytest.raises(WorkflowError, match="Plain keeps no definitions"):
        workflows(made.replace(record_store=Plain()))
    made.close()


def test_the_definition_seen_last_counts_and_older_names_stay(adapters: Adapters, console: Console) -> None:
    older = replace(
        console.definition,
        fingerprint="older",
        last_seen=console.definition.last_seen - timedelta(days=1),
        names={1: "FRESH", 9: "GONE"},
        edges={1: (9,), 9: ()},
    )
    announce(adapters, older)
    again = Console(adapters, "orders")
    assert [again.status_name(number) for number in (1, 9)] == ["NEW", "GONE"]
    assert again.graph.statuses == (1, 2, 3)
    assert workflows(adapters) == [again.definition]

    announce(adapters, replace(older, fingerprint="newer", last_seen=older.last_seen + timedelta(days=2)))
    assert Console(adapters, "orders").graph.statuses == (1, 9)


def announce(adapters: Adapters, definition: Definition) -> None:
    keeper = definitions(adapters.record_store)
    assert keeper is not None
    keeper.announce(definition)


def test_workflows_are_listed_by_name(adapters: Adapters, console: Console) -> None:
    with order_workflow(adapters, "bookings"):
        pass
    assert [definition.workflow_name for definition in workflows(adapters)] == ["bookings", "orders"]


# --- asking ---------------------------------------------------------------------------------------------------------


def test_runs_are_found_and_listed(adapters: Adapters, console: Console) -> None:
    first, second = run_id_of(console, "a"), run_id_of(console, "b")
    assert console.get(first).foreign_id == "a"
    assert console.latest("nobody") is None
    assert [record.run_id for record in console.list().items] == [second, first]
    assert [record.run_id for record in console.list(order=Direction.ASCENDING, limit=1).items] == [first]
    done = RecordFilter(run_states=frozenset({RunState.COMPLETED}))
    assert [record.run_id for record in console.each(where=done)] == [first]
    assert [(row.version, row.status) for row in console.history(first)] == [(1, 1), (2, 2), (3, 3)]
    assert [row.version for row in console.history(first, after_version=2)] == [3]
    assert console_of(adapters, second).name == "orders"


def test_a_run_of_another_workflow_is_not_found(adapters: Adapters, console: Console) -> None:
    with order_workflow(adapters, "bookings") as other:
        run_id = other.trigger("c", delay=3600)
    with pytest.raises(RunNotFound, match="workflow 'orders' has no run"):
        console.get(run_id)
    with pytest.raises(RunNotFound, match="no workflow in this store has a run nothing"):
        console_of(adapters, "nothing")
    assert console_of(adapters, run_id).name == "bookings"


def test_more_runs_than_a_page(adapters: Adapters, console: Console) -> None:
    workflow = order_workflow(adapters)
    for number in range(1010):
        workflow.trigger(f"more-{number}", delay=3600)
    names = [record.foreign_id for record in console.each(order=Direction.ASCENDING)]
    assert names == ["a", "b", *(f"more-{number}" for number in range(1010))]


def test_counts_with_and_without_the_capability(console: Console) -> None:
    expected = {(3, RunState.COMPLETED): 1, (1, RunState.RUNNING): 1}
    assert console.counts() == expected

    class Uncounted:
        capabilities = frozenset({"definitions"})

        def __getattr__(self, name: str) -> Any:
            return getattr(console.adapters.record_store, name)

    assert Console(console.adapters.replace(record_store=Uncounted()), "orders").counts() == expected


def test_rows_are_plain_values(console: Console) -> None:
    record = console.get(run_id_of(console, "a"))
    plain = console.plain(record)
    assert (plain["status"], plain["status_name"], plain["run_state"]) == (3, "DONE", "COMPLETED")
    assert (plain["object"], plain["meta"], plain["foreign_id"]) == ({"amount": 5}, {}, "a")
    assert plain["created_at"] == record.created_at.isoformat()
    assert [console.plain(row)["status_name"] for row in console.history(record.run_id)] == ["NEW", "PAID", "DONE"]


def test_bytes_are_shown_as_json_or_by_their_length() -> None:
    assert content(b'{"a": [1]}') == {"a": [1]}
    assert content(b"\xff\x00") == {"bytes": 2}
    assert content(b"[" * 200_000) == {"bytes": 200_000}
    assert content(b"") is None


# --- operating ------------------------------------------------------------------------------------------------------


def test_actions_are_those_of_the_workflow(console: Console, served: Workflow[Order, Status]) -> None:
    run_id = run_id_of(console, "b")
    console.retry(run_id, by="mia")
    console.pause(run_id, by="mia", reason="to look")
    console.resume(run_id, by="mia", idempotency_key="once")
    console.resume(run_id, by="mia", idempotency_key="once")
    console.cancel(run_id, by="mia")
    console.delete_data(run_id, by="mia")
    states = [RunState.RUNNING, RunState.RUNNING, RunState.PAUSED, RunState.RUNNING, RunState.CANCELLED]
    rows = served.history(run_id)
    assert [row.run_state for row in rows] == [*states, RunState.DATA_DELETION_REQUESTED]
    assert [row.by for row in rows[1:]] == ["mia"] * 5
    assert rows[2].reason == "to look"
    assert served.get(run_id).object == Order(7)  # nothing but the run state changed
    with pytest.raises(IllegalRunState):
        console.pause(run_id)


def test_what_it_resumes_is_carried_on_by_who_serves(console: Console, served: Workflow[Order, Status]) -> None:
    run_id = run_id_of(console, "b")
    console.pause(run_id)
    with served:
        console.resume(run_id)
        served.await_status("b", run_id, Status.DONE, timeout=DEADLINE)
    assert console.get(run_id).run_state is RunState.COMPLETED
    assert console.items(run_id).items == ()

"""What `build` finds wrong with a definition: everything, at once, in words that tell what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

import workflow
from tests.engine.orders import Order, Status, order_builder
from workflow import Builder, DefinitionError, InvalidInput, Outcome, Run, RunView
from workflow.definition import Problems, destinations_of

if TYPE_CHECKING:
    from workflow.run import Run as OnlyForTheChecker


def problems_of(builder: Builder[Any, Any]) -> str:
    with pytest.raises(DefinitionError) as caught:
        builder.build(workflow.memory())
    return "\n".join(caught.value.problems)


def to_paid(run: Run[Order, Status]) -> Literal[Status.PAID]:
    return Status.PAID


def to_delivered(run: Run[Order, Status]) -> Literal[Status.DELIVERED] | Outcome:
    return Status.DELIVERED


def unannotated(run: Any):  # type: ignore[no-untyped-def] # as users without types write it
    return Status.PAID


class TestDestinations:
    def test_they_come_from_the_literal(self) -> None:
        assert destinations_of(to_delivered, (), Status, Problems()) == {Status.DELIVERED}

    def test_or_from_to(self) -> None:
        assert destinations_of(unannotated, (Status.PAID,), Status, Problems()) == {Status.PAID}

    def test_both_must_agree(self) -> None:
        problems = Problems()
        destinations_of(to_paid, (Status.DELIVERED,), Status, problems)
        assert problems.found == ["to_paid is annotated to return PAID but declared with to= DELIVERED"]

    def test_none_is_a_problem(self) -> None:
        problems = Problems()
        assert destinations_of(unannotated, (), Status, problems) == frozenset()
        assert "Literal" in problems.found[0]

    def test_an_enum_of_a_function_is_found_in_its_closure(self) -> None:
        class Local(IntEnum):
            A = 1
            B = 2

        def step(run: Run[Order, Local]) -> Literal[Local.B]:
            return Local.B

        assert destinations_of(step, (), Local, Problems()) == {2}

    def test_only_the_return_annotation_is_resolved(self) -> None:
        def step(run: OnlyForTheChecker[Order, Status]) -> Literal[Status.PAID]:
            return Status.PAID

        assert destinations_of(step, (), Status, Problems()) == {Status.PAID}

    def test_outcome_alone_means_none(self) -> None:
        def remind(run: Run[Order, Status]) -> Outcome:
            return run.skip()

        problems = Problems()
        assert destinations_of(remind, (), Status, problems) == frozenset()
        assert problems.found == []

    def test_an_async_function_is_a_problem(self) -> None:
        async def step(run: Run[Order, Status]) -> Literal[Status.PAID]:
            return Status.PAID

        problems = Problems()
        destinations_of(step, (), Status, problems)
        assert "async" in problems.found[0]

    def test_a_callable_object_works(self) -> None:
        class Step:
            def __call__(self, run: Run[Order, Status]) -> Literal[Status.PAID]:
                return Status.PAID

        assert destinations_of(Step(), (), Status, Problems()) == {Status.PAID}


class TestBuild:
    def test_everything_is_reported_at_once(self) -> None:
        class Other(IntEnum):
            ELSEWHERE = 9

        builder = Builder("Bad Name", cast("type[Any]", complex), Status)
        builder.add_step(Status.CREATED, to_paid)
        builder.add_step(Status.CREATED, to_paid)
        builder.add_step(cast("Any", Other.ELSEWHERE), to_paid)
        found = problems_of(builder)
        assert "'Bad Name'" in found
        assert "complex" in found
        assert "CREATED has two steps" in found
        assert "not a status of Status" in found

    def test_nothing_declared(self) -> None:
        assert "nothing is declared" in problems_of(Builder("empty", Order, Status))

    def test_several_starts(self) -> None:
        builder = Builder("two", Order, Status)
        builder.add_step(Status.CREATED, to_delivered)
        builder.add_step(Status.PAID, to_delivered)
        assert "several statuses could be the start (CREATED, PAID)" in problems_of(builder)

    def test_a_circle_needs_a_start(self) -> None:
        builder = Builder("circle", Order, Status)
        builder.add_step(Status.CREATED, to_paid)
        builder.add_step(Status.PAID, cast("Any", unannotated), Status.CREATED)
        assert "name the start" in problems_of(builder)

    def test_a_given_start_may_make_others_unreachable(self) -> None:
        builder = Builder("two", Order, Status, start=Status.PAID)
        builder.add_step(Status.CREATED, to_delivered)
        builder.add_step(Status.PAID, to_delivered)
        assert "CREATED is unreachable" in problems_of(builder)

    def test_a_status_whose_functions_lead_nowhere(self) -> None:
        def stay(run: Run[Order, Status]) -> Outcome:
            return run.repeat()

        builder = order_builder()
        builder.add_step(Status.DELIVERED, stay)
        assert "none of the functions of DELIVERED leads to another status" in problems_of(builder)

    def test_names_must_be_unique_and_usable(self) -> None:
        builder = order_builder()

        def audit(run: RunView[Order, Status]) -> None:
            return

        def late(run: Run[Order, Status], now: datetime) -> Literal[Status.REJECTED]:
            return Status.REJECTED

        builder.on_complete()(audit)
        builder.on_cancel()(audit)
        builder.on_pause(name="Not A Name")(audit)
        builder.timeout(Status.CREATED, after=timedelta(hours=1))(late)
        builder.timeout(Status.CREATED, after=timedelta(hours=-2), name="early")(late)
        found = problems_of(builder)
        assert "two of hook 'audit'" in found
        assert "'Not A Name'" in found
        assert "early: after=-1 day, 22:00:00 lies in the past" in found

    def test_adapters_are_looked_at(self) -> None:
        builder = order_builder()
        with pytest.raises(DefinitionError, match="takes a set of adapters"):
            builder.build(cast("Any", "memory"))
        with pytest.raises(DefinitionError, match=r"record_store .* lacks"):
            builder.build(workflow.memory().replace(record_store=object()))

    def test_a_decorator_without_parentheses_is_told(self) -> None:
        builder = order_builder()
        with pytest.raises((InvalidInput, TypeError)):
            cast("Callable[..., Any]", builder.on_complete)(to_paid)

    def test_decorators_return_the_function(self) -> None:
        builder = Builder("same", Order, Status)
        assert builder.step(Status.CREATED)(to_paid) is to_paid

    def test_defaults_fill_in_without_wiping_each_other(self) -> None:
        builder = order_builder()
        builder.defaults(batch=7)
        builder.defaults(parallel_count=3)
        wf = builder.build(workflow.memory())
        assert "order-processing-1-consumer-3-of-3" in wf.states()

    def test_options_are_checked(self) -> None:
        builder = order_builder()
        with pytest.raises(InvalidInput, match="parallel_count=0"):
            builder.step(Status.PAID, parallel_count=0)

    def test_an_object_type_without_defaults_needs_a_value(self) -> None:
        @dataclass
        class Strict:
            amount: int

        builder = Builder("strict", Strict, Status)

        def pay(run: Run[Strict, Status]) -> Literal[Status.PAID]:
            return Status.PAID

        builder.add_step(Status.CREATED, pay)
        wf = builder.build(workflow.memory())
        with pytest.raises(workflow.CodecError, match="initial_value"):
            wf.trigger("a")

"""A workflow's definition: what the builder collected, and whether it makes sense.

The destinations of a function come from the `Literal` in its return annotation, so that a type checker proves that it
returns only declared ones. Only that annotation is resolved, not those of the parameters: they may name types that
exist for the checker alone.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, NamedTuple, get_args, get_origin
from zlib import crc32

from .callback import Callback
from .connector import ConnectorStep
from .graph import Graph
from .hook import Hook
from .options import Settled
from .run import Outcome
from .step import Step
from .timeout import Timer


class Blueprint(NamedTuple):
    """A definition, checked and complete."""

    name: str
    object_type: Any
    status_type: type[IntEnum]
    graph: Graph
    steps: Mapping[int, Step]
    callbacks: Mapping[int, Callback]
    timers: Mapping[int, Sequence[Timer]]
    connectors: Sequence[ConnectorStep]
    hooks: Sequence[Hook]
    options: Settled
    """The workflow's own: for processes that belong to no function."""

    @property
    def processed(self) -> frozenset[int]:
        """The statuses whose topic a process reads."""
        buffered = {status for status, callback in self.callbacks.items() if callback.buffered}
        return frozenset({*self.steps, *self.timers, *buffered})

    def labels(self) -> dict[tuple[int, int], list[str]]:
        """Which functions take each edge of the graph."""
        found: dict[tuple[int, int], list[str]] = {}
        timers = [timer for several in self.timers.values() for timer in several]
        taken = [
            *((step.status, step.destinations, label_of(step.function)) for step in self.steps.values()),
            *((each.status, each.destinations, f"{label_of(each.function)} ✉") for each in self.callbacks.values()),
            *((timer.status, timer.destinations, f"{timer.name} ⏲") for timer in timers),
        ]
        for status, destinations, label in taken:
            for destination in destinations:
                found.setdefault((status, destination), []).append(label)
        return found

    @property
    def fingerprint(self) -> str:
        """Changes with the graph and the names of its statuses."""
        edges = {str(origin): sorted(targets) for origin, targets in self.graph.edges.items()}
        named = {str(status): name for status, name in self.graph.names.items()}
        text = json.dumps([self.graph.start, edges, named, sorted(self.processed)], sort_keys=True)
        return f"{crc32(text.encode('utf-8')):08x}"


@dataclass(eq=False)
class Problems:
    """Everything that is wrong with a definition, in the order in which it was found."""

    found: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        if problem not in self.found:
            self.found.append(problem)


def label_of(function: object) -> str:
    """The function's name, for people."""
    return getattr(function, "__qualname__", None) or type(function).__name__


def destinations_of(
    function: Callable[..., Any], to: Iterable[IntEnum], status_type: type[IntEnum], problems: Problems
) -> frozenset[int]:
    """Where `function` may lead: by its annotation, or by `to`. Given both, they must agree."""
    label = label_of(function)
    if inspect.iscoroutinefunction(function):
        problems.add(f"{label} is an async function: these are not supported yet, use a plain one")
    given = _members(to, status_type, f"to= of {label}", problems)
    annotated = _annotated(function, status_type, problems)
    if annotated is None and not given:
        problems.add(
            f"{label} has no destinations: annotate its return type with Literal[...] of the statuses it may return, "
            "or with Outcome alone if it returns none, or give to=(...)"
        )
        return frozenset()
    if annotated is not None and given and annotated != given:
        both = [", ".join(sorted(_named(each, status_type))) or "no status" for each in (annotated, given)]
        problems.add(f"{label} is annotated to return {both[0]} but declared with to= {both[1]}")
    return given or annotated or frozenset()


def _named(statuses: Set[int], status_type: type[IntEnum]) -> list[str]:
    return [status_type(status).name for status in statuses]


def _members(values: Iterable[object], status_type: type[IntEnum], where: str, problems: Problems) -> frozenset[int]:
    """The numbers of those that are members of the enum; the others are problems."""
    found: set[int] = set()
    for value in values:
        if isinstance(value, status_type):
            found.add(int(value))
        else:
            problems.add(f"{where}: {value!r} is not a status of {status_type.__name__}")
    return frozenset(found)


def _annotated(function: Callable[..., Any], status_type: type[IntEnum], problems: Problems) -> frozenset[int] | None:
    """The statuses in the return annotation: none if it is `Outcome` alone, None if it does not tell."""
    label = label_of(function)
    try:
        annotation = _return_annotation(function, status_type)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        problems.add(f"the return annotation of {label} cannot be resolved ({error}): fix it, or give to=(...)")
        return None
    parts = _parts(annotation)
    if all(isinstance(part, type) and issubclass(part, Outcome) for part in parts):
        return frozenset()
    values = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
    return _members(values, status_type, f"the return annotation of {label}", problems) if values else None


def _return_annotation(function: Callable[..., Any], status_type: type[IntEnum]) -> Any:
    """The resolved return annotation: globals, closure and the builder's enum are what it may name."""
    target = function if inspect.isroutine(function) else type(function).__call__
    target = inspect.unwrap(target)
    raw = getattr(target, "__annotations__", {}).get("return")
    closure: Mapping[str, Any] = inspect.getclosurevars(target).nonlocals if inspect.isfunction(target) else {}
    names = {status_type.__name__: status_type, "Outcome": Outcome, **closure}

    def carrier() -> None: ...

    carrier.__annotations__ = {"return": raw}
    return typing.get_type_hints(carrier, getattr(target, "__globals__", {}), names).get("return")


def _parts(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]


def find_start(edges: Sequence[tuple[int, int]], names: Mapping[int, str], problems: Problems) -> int | None:
    """The only status that nothing else leads to."""
    origins = {origin for origin, _ in edges}
    reached = {destination for origin, destination in edges if origin != destination}
    starts = sorted(origins - reached)
    if len(starts) == 1:
        return starts[0]
    if not edges:
        problems.add("nothing is declared: give at least one step, callback or timeout")
    elif starts:
        listed = ", ".join(names.get(status, str(status)) for status in starts)
        problems.add(f"several statuses could be the start ({listed}): name one with start=")
    else:
        problems.add("every status is led to by another one: name the start with start=")
    return None


def check_graph(graph: Graph, served: Iterable[int], problems: Problems) -> None:
    """Report statuses that no run gets to, or out of; `served` are those that have functions."""
    for status in sorted(set(served)):
        if not graph.edges.get(status):
            problems.add(f"none of the functions of {graph.name(status)} leads to another status")
    for status in graph.statuses:
        if status != graph.start and not graph.reachable(graph.start, status):
            problems.add(f"{graph.name(status)} is unreachable: no path leads to it from {graph.name(graph.start)}")
    for status in graph.statuses:
        if status < 0:
            problems.add(f"{graph.name(status)} has the number {status}: statuses are 0 or more")

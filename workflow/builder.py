"""Writing down a workflow: the builder collects functions and what they are for, and `build` checks all of it at once.

    b = Builder("order-processing", Order, OrderStatus)

    @b.step(OrderStatus.CREATED)
    def pay(run: Run[Order, OrderStatus]) -> Literal[OrderStatus.PAID]: ...

    wf = b.build(memory())

Decorators return their function unchanged. Nothing is looked at before `build`, and nothing is wrong twice: it raises
one `DefinitionError` with every problem that it found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from .callback import Callback
from .clock import Clock, Numbered, Runtime, runtime_with
from .codec import JsonCodec
from .connector import Api, ConnectorStep
from .definition import Blueprint, Problems, check_graph, destinations_of, find_start, label_of
from .delete import CustomDelete
from .engine import Workflow
from .environment import Environment, check_name
from .errors import DefinitionError, InvalidInput
from .event import ConnectorEvent
from .graph import Graph
from .hook import Hook
from .options import RECONCILE_AFTER, Breaker, Options, PauseRetry, Retry, settle
from .protocols import (
    Adapters,
    Codec,
    Connector,
    EventStreamer,
    Logger,
    Metrics,
    NoMetrics,
    NoTracer,
    RecordStore,
    RoleScheduler,
    StandardLogger,
    TimeoutStore,
    Tracer,
)
from .roster import Policies
from .run import O, Outcome, Run, RunView, S
from .run_state import RunState
from .step import Step
from .timeout import Timer

F = TypeVar("F", bound=Callable[..., object])


class Declared(NamedTuple):
    """A function as it was handed to the builder."""

    kind: str
    function: Callable[..., Any]
    status: Any
    to: Sequence[Any]
    name: str | None
    options: Options
    details: Any = None
    """What only this kind has: whether a callback is buffered, after how long a timer comes, and so on."""


class Builder(Generic[O, S]):
    """Collects the definition of one workflow. For one thread, at import time or so."""

    def __init__(self, name: str, object_type: type[O], status_type: type[S], *, start: S | None = None) -> None:
        self._name = name
        self._object_type = object_type
        self._status_type = status_type
        self._start = start
        self._defaults = Options()
        self._declared: list[Declared] = []

    def defaults(
        self,
        *,
        parallel_count: int | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        timeout: float | None = None,
        poll_interval: float | None = None,
        batch: int | None = None,
    ) -> None:
        """Set options for all functions that do not set their own. Those that are not given here stay as they are."""
        given = Options(parallel_count, retry, breaker, timeout, poll_interval, batch)
        self._defaults = given.over(self._defaults)

    def step(
        self,
        status: S,
        *,
        to: Sequence[S] = (),
        parallel_count: int | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        timeout: float | None = None,
        poll_interval: float | None = None,
        batch: int | None = None,
    ) -> Callable[[Callable[[Run[O, S]], S | Outcome]], Callable[[Run[O, S]], S | Outcome]]:
        """Have the decorated function called for each run that enters `status`.

        Its destinations are the statuses in the `Literal` of its return annotation, or `to`. The options are explained
        at `Options`.
        """
        options = Options(parallel_count, retry, breaker, timeout, poll_interval, batch)
        return self._declare("step", status, to, None, options)

    def add_step(
        self,
        status: S,
        function: Callable[[Run[O, S]], S | Outcome],
        *destinations: S,
        parallel_count: int | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        timeout: float | None = None,
        poll_interval: float | None = None,
        batch: int | None = None,
    ) -> None:
        """`step` without the decorator."""
        options = Options(parallel_count, retry, breaker, timeout, poll_interval, batch)
        self._declare("step", status, destinations, None, options)(function)

    def callback(
        self, status: S, *, buffer: bool = False, to: Sequence[S] = (), retry: Retry | None = None
    ) -> Callable[[Callable[[Run[O, S], bytes], S | Outcome]], Callable[[Run[O, S], bytes], S | Outcome]]:
        """Have the decorated function called when `Workflow.callback` is, for a run in `status`.

        With `buffer`, a callback that comes before its status is kept until the run gets there.
        """
        return self._declare("callback", status, to, None, Options(retry=retry), buffer)

    def timeout(
        self,
        status: S,
        *,
        after: timedelta | Callable[[Run[O, S], datetime], datetime | None],
        name: str | None = None,
        to: Sequence[S] = (),
        retry: Retry | None = None,
        parallel_count: int | None = None,
    ) -> Callable[[Callable[[Run[O, S], datetime], S | Outcome]], Callable[[Run[O, S], datetime], S | Outcome]]:
        """Have the decorated function called when a run has been in `status` for `after`.

        `after` is a span from the entry into the status, or a function (run, now) that tells the instant, or None for
        no timer. A status may have several timers, each with its own function; `name` defaults to the function's.
        """
        options = Options(retry=retry, parallel_count=parallel_count)
        return self._declare("timeout", status, to, name, options, after)

    def connector(
        self,
        name: str,
        source: Connector,
        *,
        ordered: bool = False,
        retry: Retry | None = None,
        parallel_count: int | None = None,
        batch: int | None = None,
    ) -> Callable[[Callable[[Api[O, S], ConnectorEvent], None]], Callable[[Api[O, S], ConnectorEvent], None]]:
        """Have the decorated function called for each event of `source`.

        With `ordered`, an event that fails is tried again in place and holds up what is behind it in its shard;
        without, it is parked and the others go on.
        """
        options = Options(retry=retry, parallel_count=parallel_count, batch=batch)
        return self._declare("connector", None, (), name, options, (source, ordered))

    def on_pause(
        self, *, name: str | None = None, retry: Retry | None = None
    ) -> Callable[[Callable[[RunView[O, S]], None]], Callable[[RunView[O, S]], None]]:
        """Have the decorated function called, at least once, for each run that is paused. Any number, each named."""
        return self._declare("hook", None, (), name, Options(retry=retry), RunState.PAUSED)

    def on_cancel(
        self, *, name: str | None = None, retry: Retry | None = None
    ) -> Callable[[Callable[[RunView[O, S]], None]], Callable[[RunView[O, S]], None]]:
        """As `on_pause`, for each run that is cancelled."""
        return self._declare("hook", None, (), name, Options(retry=retry), RunState.CANCELLED)

    def on_complete(
        self, *, name: str | None = None, retry: Retry | None = None
    ) -> Callable[[Callable[[RunView[O, S]], None]], Callable[[RunView[O, S]], None]]:
        """As `on_pause`, for each run that is completed."""
        return self._declare("hook", None, (), name, Options(retry=retry), RunState.COMPLETED)

    def _declare(
        self, kind: str, status: object, to: Sequence[Any], name: str | None, options: Options, details: Any = None
    ) -> Callable[[F], F]:
        if callable(name):
            raise InvalidInput(f"write the decorator of {label_of(name)} with parentheses")

        def take(function: F) -> F:
            self._declared.append(Declared(kind, function, status, to, name, options, details))
            return function

        return take

    def build(
        self,
        adapters: Adapters,
        *,
        clock: Clock | None = None,
        codec: Codec | None = None,
        logger: Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        retention: timedelta | None = None,
        pause_retry: PauseRetry | None = None,
        custom_delete: Callable[[RunView[O, S]], O | None] | None = None,
        region: str = "",
        reconcile_after: float = RECONCILE_AFTER,
        instance: str = "",
        runtime: Runtime | None = None,
    ) -> Workflow[O, S]:
        """The workflow on these adapters. Raises `DefinitionError` with everything that is wrong.

        `retention`: how long finished runs are kept (None: for ever). `pause_retry`: whether runs that the engine
        paused are resumed. `custom_delete`: what to keep of an object whose data is deleted. `reconcile_after`: seconds
        without a change after which a running run's event is emitted again. `instance` names this instance in the
        history.
        """
        codec = codec if codec is not None else JsonCodec()
        blueprint = self._blueprint(codec, adapters)
        runtime = runtime if runtime is not None else runtime_with(clock)
        instance = instance or runtime.new_id()[-12:]
        environment: Environment[O, S] = Environment(
            workflow_name=self._name,
            object_type=self._object_type,
            status_type=self._status_type,
            graph=blueprint.graph,
            adapters=adapters,
            codec=codec,
            runtime=runtime,
            logger=logger if logger is not None else StandardLogger(),
            metrics=metrics if metrics is not None else NoMetrics(),
            tracer=tracer if tracer is not None else NoTracer(),
            instance=instance,
            new_write_id=Numbered(runtime.new_id()),
            region=region,
        )
        custom: CustomDelete | None = custom_delete
        return Workflow(environment, blueprint, Policies(retention, pause_retry, custom, reconcile_after))

    def _blueprint(self, codec: Codec, adapters: Adapters) -> Blueprint:
        """The definition, checked; raises `DefinitionError`."""
        problems = Problems()
        collected = _Collection(self._status_type, self._defaults, problems)
        for declared in self._declared:
            collected.add(declared)
        self._check_type_and_name(codec, problems)
        _check_adapters(adapters, problems)
        graph = self._graph(collected, problems)
        if graph is None or problems.found:
            raise DefinitionError(self._name, problems.found)
        return Blueprint(
            name=self._name,
            object_type=self._object_type,
            status_type=self._status_type,
            graph=graph,
            steps=collected.steps,
            callbacks=collected.callbacks,
            timers=collected.timers,
            connectors=collected.connectors,
            hooks=collected.hooks,
            options=settle(self._defaults),
        )

    def _check_type_and_name(self, codec: Codec, problems: Problems) -> None:
        try:
            check_name("workflow", self._name)
        except InvalidInput as error:
            problems.add(str(error))
        for problem in codec.check(self._object_type):
            problems.add(f"the codec cannot carry the object type: {problem}")

    def _graph(self, collected: _Collection, problems: Problems) -> Graph | None:
        names = {int(status): status.name for status in self._status_type}
        start = find_start(collected.edges, names, problems) if self._start is None else int(self._start)
        if start is None:
            return None
        graph = Graph.of(start, collected.edges, names)
        check_graph(graph, {*collected.steps, *collected.callbacks, *collected.timers}, problems)
        return graph


class _Collection:
    """Turns what was declared into the parts of a blueprint, and notes what is wrong with each."""

    def __init__(self, status_type: type[Any], defaults: Options, problems: Problems) -> None:
        self._status_type = status_type
        self._defaults = defaults
        self._problems = problems
        self.edges: list[tuple[int, int]] = []
        self.steps: dict[int, Step] = {}
        self.callbacks: dict[int, Callback] = {}
        self.timers: dict[int, list[Timer]] = {}
        self.connectors: list[ConnectorStep] = []
        self.hooks: list[Hook] = []
        self._names: set[tuple[str, str]] = set()

    def add(self, declared: Declared) -> None:
        """Add one declared function."""
        adders: Mapping[str, Callable[[Declared], None]] = {
            "step": self._add_step,
            "callback": self._add_callback,
            "timeout": self._add_timer,
            "connector": self._add_connector,
            "hook": self._add_hook,
        }
        adders[declared.kind](declared)

    def _status(self, declared: Declared) -> int | None:
        if isinstance(declared.status, self._status_type):
            return int(declared.status)
        self._problems.add(
            f"{declared.kind} {label_of(declared.function)}: {declared.status!r} is not a status of "
            f"{self._status_type.__name__}"
        )
        return None

    def _destinations(self, declared: Declared, status: int) -> frozenset[int]:
        found = destinations_of(declared.function, declared.to, self._status_type, self._problems)
        self.edges.extend((status, destination) for destination in found)
        return found

    def _add_step(self, declared: Declared) -> None:
        status = self._status(declared)
        if status is None:
            return
        destinations, options = self._destinations(declared, status), settle(declared.options.over(self._defaults))
        if status in self.steps:
            first, second = self.steps[status].label, label_of(declared.function)
            self._problems.add(f"{self._status_type(status).name} has two steps: {first} and {second}")
        self.steps[status] = Step(status, declared.function, destinations, options)

    def _add_callback(self, declared: Declared) -> None:
        status = self._status(declared)
        if status is None:
            return
        destinations, options = self._destinations(declared, status), settle(declared.options.over(self._defaults))
        if status in self.callbacks:
            self._problems.add(f"{self._status_type(status).name} has two callbacks: declare one")
        self.callbacks[status] = Callback(status, declared.function, destinations, bool(declared.details), options)

    def _add_timer(self, declared: Declared) -> None:
        status = self._status(declared)
        if status is None:
            return
        destinations, options = self._destinations(declared, status), settle(declared.options.over(self._defaults))
        name = self._named(declared, f"timeout of {self._status_type(status).name}")
        if isinstance(declared.details, timedelta) and declared.details < timedelta(0):
            self._problems.add(f"timeout {name}: after={declared.details} lies in the past")
        timer = Timer(status, name, declared.details, declared.function, destinations, options)
        self.timers.setdefault(status, []).append(timer)

    def _add_connector(self, declared: Declared) -> None:
        source, ordered = declared.details
        name = self._named(declared, "connector")
        options = settle(declared.options.over(self._defaults))
        self.connectors.append(ConnectorStep(name, source, declared.function, ordered, options))

    def _add_hook(self, declared: Declared) -> None:
        name = self._named(declared, "hook")
        options = settle(declared.options.over(self._defaults))
        self.hooks.append(Hook(name, declared.details, declared.function, options))

    def _named(self, declared: Declared, what: str) -> str:
        """The name given, or the function's; it must be usable, and unique among its kind."""
        name = declared.name or getattr(declared.function, "__name__", "").lower().strip("_")
        try:
            check_name(what, name)
        except InvalidInput as error:
            self._problems.add(f"{error}; give name=")
        if (what, name) in self._names:
            self._problems.add(f"there are two of {what} {name!r}: give them different names")
        self._names.add((what, name))
        return name


_PORTS: Mapping[str, type] = {
    "record_store": RecordStore,
    "event_streamer": EventStreamer,
    "timeout_store": TimeoutStore,
    "role_scheduler": RoleScheduler,
}


def _check_adapters(adapters: object, problems: Problems) -> None:
    """Report each part of the set that lacks something of its port."""
    if not isinstance(adapters, Adapters):
        problems.add(f"build takes a set of adapters, as memory() or sqlite(path), not a {type(adapters).__name__}")
        return
    for part, port in _PORTS.items():
        wanted = {name for base in port.__mro__ for name in vars(base) if not name.startswith("_")}
        missing = sorted(name for name in wanted if not hasattr(getattr(adapters, part), name))
        if missing:
            problems.add(f"the {part} ({type(getattr(adapters, part)).__name__}) lacks {', '.join(missing)}")

"""What the stores of one set share, and what several handles on it share: the tables of a database, as dictionaries.

A handle (`MemoryRecordStore` and its kin) may be closed while others go on; the data is here. Each group has a lock
of its own, which is held for moments and never while somebody is notified. Runs and topics share one, so that a
record, its row of history and its event appear at the same moment.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from ...event import OutboxEvent, Timeout
from ...protocols import Definition, MemberRow
from ...record import Record, Transition
from ...run_state import RunState
from .listeners import Listeners, TopicListeners
from .ordered import Agenda, Roll
from .topic import Topic


def numbered() -> Callable[[], int]:
    """Numbers from 1 on."""
    return itertools.count(1).__next__


@dataclass
class Run:
    """A run: its current version, its history (version n at place n - 1), and its events that wait."""

    number: int
    record: Record
    history: list[Transition] = field(default_factory=list[Transition])
    outbox: set[str] = field(default_factory=set[str])


@dataclass
class WorkflowRuns:
    """The runs of one workflow, by what they are asked for."""

    published: bool = False
    """Whether events go into the log of this storage."""
    by_creation: Roll[Run] = field(default_factory=Roll[Run])
    by_foreign_id: defaultdict[str, dict[int, Run]] = field(default_factory=lambda: defaultdict(dict))
    active: dict[str, str] = field(default_factory=dict[str, str])
    """Foreign id to the active run's id."""
    applied: dict[str, str] = field(default_factory=dict[str, str])
    """Cause to the id of the run on which it took effect."""
    counts: dict[tuple[int, RunState], int] = field(default_factory=dict[tuple[int, RunState], int])
    outbox: Agenda = field(default_factory=Agenda)


@dataclass(frozen=True)
class OutboxRow:
    """An event that waits, and what it is found by."""

    waiting: OutboxEvent
    workflow_name: str
    run_id: str
    region: str


class Runs:
    """Runs, topics, and who waits for them. `lock` guards all but the listeners, which guard themselves."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs: dict[str, Run] = {}
        self.workflows: defaultdict[str, WorkflowRuns] = defaultdict(WorkflowRuns)
        self.outbox: dict[str, OutboxRow] = {}
        self.definitions: dict[tuple[str, str], Definition] = {}
        self.topics: dict[str, Topic] = {}
        self.next_run = numbered()
        self.next_outbox_row = numbered()
        self.next_generation = numbered()
        self.listeners = Listeners()
        self.topic_listeners = TopicListeners()

    def topic(self, name: str) -> Topic:
        """The topic, made when it is first named."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name)
        return topic


class Timeouts:
    """Due items, by what they are asked for. `lock` guards all but the listeners."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.items: dict[str, Timeout] = {}
        self.by_key: dict[tuple[str, str, str], str] = {}
        self.by_run: defaultdict[str, set[str]] = defaultdict(set)
        self.pending: defaultdict[str, Roll[str]] = defaultdict(Roll)
        """Workflow to its pending items."""
        self.due: defaultdict[tuple[str, str, int], Agenda] = defaultdict(Agenda)
        """(workflow, kind, status) to its pending items that are not held."""
        self.ended = Agenda()
        """By creation."""
        self.next_item = numbered()
        self.listeners = Listeners()


@dataclass
class LeaseOf:
    """A role: its last epoch, and who holds it, if anybody."""

    epoch: int = 0
    holder: str = ""


class Leases:
    """Roles and members. `lock` guards all but the listeners."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.members: dict[str, MemberRow] = {}
        self.leases: dict[str, LeaseOf] = {}
        self.listeners = Listeners()


class MemoryStorage:
    """All of it."""

    def __init__(self) -> None:
        self.runs = Runs()
        self.timeouts = Timeouts()
        self.leases = Leases()

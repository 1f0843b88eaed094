"""The file connector: lines become events once each, however often the process, the layout or the file changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import pytest

import workflow
from workflow import Api, Builder, Cancelled, CancelToken, ConnectorEvent, InvalidInput, Run, Shard, Unavailable
from workflow.files import JsonLines, SourceChanged
from workflow.protocols import ConnectorDelivery, ConnectorReceiver
from workflow.testing import VirtualClock, eventually

NEVER = CancelToken()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input" / "events.jsonl"


def write(path: Path, *lines: object) -> None:
    """Add lines: objects as JSON, text and bytes as they are."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        for line in lines:
            raw = line if isinstance(line, bytes) else json.dumps(line).encode()
            file.write(raw + b"\n")


def numbered(first: int, last: int, keys: int = 7) -> list[dict[str, Any]]:
    return [{"id": f"event-{n}", "case": f"case-{n % keys}", "n": n} for n in range(first, last + 1)]


def source(path: Path, **options: Any) -> JsonLines:
    given: dict[str, Any] = {"key": "case", "id": "id", "follow": False, **options}
    return JsonLines(path, **given)


def drain(receiver: ConnectorReceiver, limit: int = 10) -> list[ConnectorDelivery]:
    """All that is there."""
    found: list[ConnectorDelivery] = []
    while some := receiver.recv(NEVER, limit=limit, timeout=0):
        assert len(some) <= limit
        found.extend(some)
    return found


def ids(deliveries: Sequence[ConnectorDelivery]) -> list[str]:
    return [delivery.event.id for delivery in deliveries]


# --- lines ----------------------------------------------------------------------------------------------------------


def test_a_line_becomes_an_event(path: Path) -> None:
    clock = VirtualClock()
    write(path, {"id": "e1", "case": "A", "text": "ä"}, b'{"id": "e2", "case": 7}\r')
    first, second = drain(source(path, clock=clock).open("feed", Shard()))
    assert first.event == ConnectorEvent("e1", "A", b'{"id": "e1", "case": "A", "text": "\\u00e4"}', clock.now())
    assert second.event == ConnectorEvent("e2", "7", b'{"id": "e2", "case": 7}', clock.now())
    assert not first.redelivered


def test_without_fields_an_event_is_named_by_its_offset(path: Path) -> None:
    write(path, b"one", b"", b"  ", b"two")
    found = drain(JsonLines(path).open("feed", Shard()))
    assert [(each.event.id, each.event.key, each.event.payload) for each in found] == [
        ("0", "0", b"one"),
        ("8", "8", b"two"),
    ]


def test_id_and_key_may_be_functions(path: Path) -> None:
    write(path, {"a": {"b": 1}, "c": "x"})
    reader = JsonLines(path, id=lambda line: f"n{line['a']['b']}", key=lambda line: line["c"])
    assert [(each.event.id, each.event.key) for each in drain(reader.open("feed", Shard()))] == [("n1", "x")]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{not json", "JSONDecodeError"),
        (b"\xff\xfe\x00", "UnicodeDecodeError"),
        (b"[1, 2]", "TypeError"),
        (b'{"case": "A"}', "KeyError"),
        (b'{"id": "e1"}', "KeyError"),
        (b'{"id": "e1", "case": null}', "InvalidInput: the key is a NoneType"),
        (b'{"id": "e1", "case": true}', "InvalidInput: the key is a bool"),
        (b'{"id": "", "case": "A"}', "InvalidInput: the id has 0 characters"),
        (b'{"id": "e1", "case": "\\ud800"}', "InvalidInput: the key holds a NUL or a lone surrogate"),
    ],
)
def test_a_line_that_cannot_be_read_is_kept_and_marked(path: Path, line: bytes, complaint: str) -> None:
    write(path, {"id": "e0", "case": "A"}, line, {"id": "e2", "case": "B"})
    before, bad, after = drain(source(path).open("feed", Shard()))
    assert [before.event.id, after.event.id] == ["e0", "e2"]
    assert bad.event.payload == line
    assert bad.event.headers["malformed"].startswith(complaint)
    assert b"secret" not in bad.event.headers["malformed"].encode()


def test_what_is_wrong_with_a_line_is_told_without_its_text(path: Path) -> None:
    write(path, {"id": "e1"}, b'{"secret')

    def key(line: Any) -> str:
        raise ValueError(f"secret: {line}")

    for delivery in drain(JsonLines(path, key=key).open("feed", Shard())):
        assert "secret" not in delivery.event.headers["malformed"]


# --- progress -------------------------------------------------------------------------------------------------------


def test_what_is_acknowledged_does_not_come_again(path: Path) -> None:
    write(path, *numbered(1, 10))
    receiver = source(path).open("feed", Shard())
    handed_out = receiver.recv(NEVER, limit=6)
    handed_out[3].ack()
    receiver.close()
    again = drain(source(path).open("feed", Shard()))
    assert ids(again) == [f"event-{n}" for n in range(5, 11)]
    assert [each.redelivered for each in again] == [True, True, False, False, False, False]


def test_what_was_handed_out_is_marked_even_if_the_process_was_killed(path: Path) -> None:
    write(path, *numbered(1, 10))
    source(path).open("feed", Shard()).recv(NEVER, limit=6)  # and no close
    again = drain(source(path).open("feed", Shard()))
    assert len(again) == 10
    assert all(each.redelivered for each in again[:6])


def test_acknowledging_is_cumulative_and_never_rewinds(path: Path) -> None:
    write(path, *numbered(1, 10))
    old, new = source(path), source(path)
    first = old.open("feed", Shard()).recv(NEVER, limit=8)
    first[4].ack()
    first[1].ack()
    receiver = new.open("feed", Shard())
    second = receiver.recv(NEVER, limit=8)
    assert second[0].event.id == "event-6"
    second[2].ack()
    first[6].ack()  # late, of a receiver that was superseded
    second[2].ack()
    assert ids(drain(source(path).open("feed", Shard()))) == ["event-9", "event-10"]


def test_receiving_and_closing_acknowledge_nothing(path: Path) -> None:
    write(path, *numbered(1, 5))
    receiver = source(path).open("feed", Shard())
    drain(receiver)
    receiver.close()
    assert len(drain(source(path).open("feed", Shard()))) == 5


def test_names_have_their_own_progress(path: Path) -> None:
    write(path, *numbered(1, 3))
    drain(source(path).open("feed", Shard()))[-1].ack()
    assert len(drain(source(path).open("audit", Shard()))) == 3
    assert drain(source(path).open("feed", Shard())) == []


def test_the_cursor_can_live_in_another_folder(path: Path, tmp_path: Path) -> None:
    write(path, *numbered(1, 3))
    place = tmp_path / "state" / "deep" / "feed"
    drain(source(path, cursor=place).open("feed", Shard()))[-1].ack()
    assert [each.name for each in path.parent.iterdir()] == ["events.jsonl"]
    assert sorted(each.name for each in place.parent.iterdir()) == ["feed.feed", "feed.feed.1-of-1"]
    assert drain(source(path, cursor=place).open("feed", Shard())) == []


def test_shards_are_disjoint_and_complete_and_keep_the_order_of_a_key(path: Path) -> None:
    write(path, *numbered(1, 200))
    for total in range(1, 6):
        shards = [drain(source(path).open(f"feed-{total}", Shard(i, total))) for i in range(1, total + 1)]
        assert sorted(n for found in shards for n in ids(found)) == sorted(f"event-{n}" for n in range(1, 201))
        for found in shards:
            for key in {each.event.key for each in found}:
                numbers = [json.loads(each.event.payload)["n"] for each in found if each.event.key == key]
                assert numbers == sorted(numbers)


def test_a_change_of_the_number_of_shards_loses_nothing(path: Path) -> None:
    write(path, *numbered(1, 100))
    acked: set[str] = set()
    for total in (1, 7, 3, 7, 1):
        reader = source(path)
        for index in range(1, total + 1):
            receiver = reader.open("feed", Shard(index, total))
            found = receiver.recv(NEVER, limit=index + 2, timeout=0)
            if found:
                acked.update(ids(found))
                found[-1].ack()
            receiver.close()
    rest = ids(drain(source(path).open("feed", Shard())))
    assert acked | set(rest) == {f"event-{n}" for n in range(1, 101)}
    assert rest == [f"event-{n}" for n in range(int(rest[0].removeprefix("event-")), 101)]
    assert rest[0] != "event-1"


def test_it_is_caught_up_when_every_shard_has_acknowledged_its_last_line(path: Path) -> None:
    write(path, *numbered(1, 20), b"")
    log = source(path)
    assert not log.caught_up("feed")
    for index in (1, 2, 3):
        receiver = log.open("feed", Shard(index, 3))
        assert not log.caught_up("feed")
        drain(receiver)[-1].ack()
    assert log.caught_up("feed")
    assert not log.caught_up("other")
    write(path, {"id": "event-21", "case": "case-0"})
    assert not log.caught_up("feed")


def test_progress_of_a_retired_layout_is_ignored(path: Path) -> None:
    write(path, *numbered(1, 20))
    old = source(path).open("feed", Shard()).recv(NEVER, limit=20)
    old[4].ack()
    new = source(path).open("feed", Shard(1, 2))
    old[9].ack()
    new.close()
    shards = [drain(source(path).open("feed", Shard(index, 2))) for index in (1, 2)]
    assert sorted(n for found in shards for n in ids(found)) == sorted(f"event-{n}" for n in range(6, 21))
    assert ids(drain(source(path).open("feed", Shard())))[0] == "event-6"
    old[19].ack()  # the same number of shards, but not the same layout
    assert ids(drain(source(path).open("feed", Shard())))[0] == "event-6"


def test_going_back_to_an_earlier_number_of_shards_does_not_rewind(path: Path) -> None:
    write(path, *numbered(1, 20))
    source(path).open("feed", Shard()).recv(NEVER, limit=2)[-1].ack()
    for index in (1, 2):
        drain(source(path).open("feed", Shard(index, 2)))[-1].ack()
    assert drain(source(path).open("feed", Shard())) == []


# --- following ------------------------------------------------------------------------------------------------------


def test_a_line_is_read_when_it_is_complete(path: Path) -> None:
    write(path, {"id": "e1", "case": "A"})
    receiver = source(path, follow=True).open("feed", Shard())
    assert ids(drain(receiver)) == ["e1"]
    with path.open("ab") as file:
        file.write(b'{"id": "e2", ')
    assert drain(receiver) == []
    with path.open("ab") as file:
        file.write(b'"case": "A"}')
    assert drain(receiver) == []
    with path.open("ab") as file:
        file.write(b"\n")
    assert ids(drain(receiver)) == ["e2"]


def test_a_last_line_without_an_end_counts_if_the_file_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"id": "e1", "case": "A"}\n{"id": "e2", "case": "A"}')
    assert ids(drain(source(path).open("feed", Shard()))) == ["e1", "e2"]


def test_a_blocked_receiver_sees_the_file_appear_and_grow(path: Path) -> None:
    clock = VirtualClock()
    receiver = source(path, follow=True, clock=clock).open("feed", Shard())
    found: list[ConnectorDelivery] = []
    thread = threading.Thread(target=lambda: found.extend(receiver.recv(NEVER, limit=5)))
    thread.start()
    clock.settle()
    write(path, {"id": "e1", "case": "A"})
    clock.settle()
    assert not found, "it looks every poll interval, and no time has passed"
    clock.advance(0.2)
    thread.join(10)
    assert ids(found) == ["e1"]


def test_waiting_ends_on_time_and_with_the_token(path: Path) -> None:
    clock = VirtualClock()
    write(path, {"id": "e1", "case": "A"})
    for follow in (True, False):
        receiver = source(path, follow=follow, clock=clock).open("feed", Shard())
        drain(receiver)
        began = clock.monotonic()
        assert list(receiver.recv(NEVER, timeout=3)) == []
        assert clock.monotonic() - began == pytest.approx(3)
        token = CancelToken()
        token.cancel()
        with pytest.raises(Cancelled):
            receiver.recv(token)


def test_a_truncated_file_is_an_error(path: Path) -> None:
    write(path, *numbered(1, 10))
    receiver = source(path, follow=True).open("feed", Shard())
    drain(receiver)[5].ack()
    path.write_bytes(b"")
    with pytest.raises(SourceChanged, match="truncated"):
        receiver.recv(NEVER, timeout=0)
    write(path, *numbered(11, 40))  # and grows beyond where it was
    with pytest.raises(SourceChanged, match="was replaced"):
        receiver.recv(NEVER, timeout=0)
    with pytest.raises(SourceChanged, match="was replaced"):
        source(path, follow=True).open("feed", Shard())


def test_a_file_that_is_gone_is_an_error(path: Path) -> None:
    write(path, *numbered(1, 10))
    receiver = source(path, follow=True).open("feed", Shard())
    drain(receiver)[5].ack()
    path.unlink()
    with pytest.raises(SourceChanged, match="removed"):
        receiver.recv(NEVER, timeout=0)
    with pytest.raises(Unavailable, match="cannot be read"):
        source(path).open("other", Shard())


def test_a_copy_of_the_same_file_is_no_error(path: Path) -> None:
    write(path, *numbered(1, 10))
    receiver = source(path, follow=True).open("feed", Shard())
    drain(receiver)[5].ack()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    write(path, *numbered(11, 12))
    assert ids(drain(receiver)) == ["event-11", "event-12"]
    assert len(drain(source(path).open("feed", Shard()))) == 6


def test_a_cursor_that_cannot_be_read_is_an_error(path: Path) -> None:
    write(path, *numbered(1, 10))
    drain(source(path).open("feed", Shard()))[5].ack()
    cursor = path.with_name("events.jsonl.cursor.feed.1-of-1")
    cursor.write_text('{"acked": ', encoding="utf-8")
    with pytest.raises(SourceChanged, match="delete it"):
        source(path).open("feed", Shard())


def test_a_poll_interval_of_nothing_is_refused(path: Path) -> None:
    with pytest.raises(InvalidInput, match="poll_interval"):
        JsonLines(path, poll_interval=0)


# --- in a workflow --------------------------------------------------------------------------------------------------


class Stage(IntEnum):
    OPEN = 1
    DONE = 2


@dataclass
class Case:
    seen: list[int] = field(default_factory=list[int])


def feeding(path: Path, **options: Any) -> Builder[Case, Stage]:
    """Each case is a run; each of its events calls it back; number 30 of a case ends it."""
    builder = Builder("cases", Case, Stage)

    @builder.callback(Stage.OPEN)
    def note(run: Run[Case, Stage], payload: bytes) -> Literal[Stage.OPEN, Stage.DONE]:
        run.object.seen.append(int(payload))
        return Stage.DONE if len(run.object.seen) == 30 else Stage.OPEN

    @builder.connector("feed", source(path, **options), ordered=True, parallel_count=3)
    def feed(api: Api[Case, Stage], event: ConnectorEvent) -> None:
        fields = json.loads(event.payload)
        if api.latest(event.key) is None:
            api.trigger(event.key)
        assert api.callback(event.key, Stage.OPEN, str(fields["n"]).encode())

    return builder


def test_a_file_feeds_a_workflow_across_restarts(path: Path, tmp_path: Path) -> None:
    expected = {f"case-{key}": [n for n in range(210) if n % 7 == key] for key in range(7)}
    for first in range(0, 210, 70):
        write(path, *numbered(first, first + 69))
        adapters = workflow.sqlite(tmp_path / "store.db")
        wf = feeding(path, follow=True, poll_interval=0.01).build(adapters)

        def arrived(wf: Any = wf, upto: int = first + 70) -> bool:
            runs = [wf.latest(case) for case in expected]
            return sum(len(run.object.seen) for run in runs if run is not None) >= upto

        with wf:
            eventually(arrived)
        adapters.close()
    adapters = workflow.sqlite(tmp_path / "store.db")
    wf = feeding(path).build(adapters)
    runs = {case: wf.latest(case) for case in expected}
    assert {case: run.object.seen for case, run in runs.items() if run is not None} == expected
    assert all(run is not None and run.status is Stage.DONE for run in runs.values())
    adapters.close()

"""`run`: serving, stopping, and feeding a file whose runs are followed to their end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shop import Order, Status, shop
from tests.cli.support import SHOP, Child, child, environment, wait_until
from workflow import RunState, sqlite
from workflow.cli.main import main
from workflow.console import Console


class Store:
    """A store's file, its URL, and files beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'shop.db'}"
        self.gate = folder / "gate"

    def run(self, *arguments: str) -> Sequence[str]:
        return ("run", SHOP, "--store", self.url, *arguments)

    def input(self, *lines: object) -> str:
        path = self.folder / "input.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return str(path)

    def line(self, name: str, **fields: object) -> dict[str, Any]:
        return {"foreign_id": name, "initial_value": {"amount": 1, "gate": "", "ask": False} | fields}

    def wait_for_step(self) -> None:
        wait_until(Path(f"{self.gate}.waits").exists, "the step")

    def histories(self) -> dict[str, list[str]]:
        """The names of the statuses that each foreign id's runs went through."""
        adapters = sqlite(self.folder / "shop.db")
        try:
            console = Console(adapters, "shop")
            found: dict[str, list[str]] = {}
            for record in console.each():
                went = [console.status_name(row.status) for row in console.history(record.run_id)]
                found.setdefault(record.foreign_id, []).extend(went)
            return found
        finally:
            adapters.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


DONE = ["NEW", "PAID", "DONE"]

# --- serving and stopping -------------------------------------------------------------------------------------------


def place(store: Store, name: str, order: Order) -> None:
    adapters = sqlite(store.folder / "shop.db")
    try:
        shop.build(adapters).trigger(name, initial_value=order)
    finally:
        adapters.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(store: Store, number: signal.Signals) -> None:
    with child(store.folder / "child", *store.run()) as process:
        process.wait_for("serving shop")
        place(store, "order", Order())
        wait_until(lambda: store.histories() == {"order": DONE}, "the run's end")
        process.process.send_signal(number)
        result = process.end()
    assert (result.status, result.out) == (0, "")
    assert "stopping" in result.err


def test_ctrl_c_waits_for_what_is_in_hand_and_says_so(store: Store) -> None:
    place(store, "order", Order(gate=str(store.gate)))
    with child(store.folder / "child", *store.run()) as process:
        store.wait_for_step()
        process.process.send_signal(signal.SIGINT)
        process.wait_for("waiting, at most 30 s, for pay of run ")
        store.gate.touch()
        result = process.end()
    assert result.status == 0
    assert store.histories()["order"][:2] == ["NEW", "PAID"]


def test_ctrl_c_twice_stops_at_once_and_nothing_is_lost(store: Store) -> None:
    place(store, "order", Order(gate=str(store.gate)))
    with child(store.folder / "child", *store.run()) as process:
        store.wait_for_step()
        process.process.send_signal(signal.SIGINT)
        process.wait_for("stopping")
        process.process.send_signal(signal.SIGINT)
        result = process.end()
    assert result.status == 130
    assert "stopped at once" in result.err
    store.gate.touch()
    with child(store.folder / "again", *store.run()) as process:
        wait_until(lambda: store.histories()["order"][-1:] == ["DONE"], "the run's end")
        process.process.send_signal(signal.SIGTERM)
        assert process.end().status == 0


def test_a_function_that_never_returns_is_named(store: Store) -> None:
    place(store, "order", Order(gate=str(store.gate)))
    with child(store.folder / "child", *store.run("--stop-timeout", "0.3")) as process:
        store.wait_for_step()
        process.process.send_signal(signal.SIGTERM)
        result = process.end()
    assert result.status == 1
    assert "did not stop within 0.3 s: still in pay of run " in result.err.splitlines()[-1]


# --- input ----------------------------------------------------------------------------------------------------------


def test_a_file_of_runs_that_all_complete(store: Store) -> None:
    lines = [store.line(f"order-{number}", amount=number) for number in range(1, 51)]
    path = store.input(*lines, "", {"foreign_id": "paid", "start_at": "PAID"})
    with child(store.folder / "child", *store.run("--input", path, "--json")) as process:
        result = process.end()
    assert result.status == 0
    assert "51 lines: 51 completed" in result.err
    assert sorted(values["line"] for values in result.values) == [*range(1, 51), 52]
    assert {values["run_state"] for values in result.values} == {"COMPLETED"}
    assert store.histories()["order-7"] == DONE
    assert store.histories()["paid"] == ["PAID", "DONE"]


BAD = {
    "{": "no JSON",
    "[]": "no JSON object",
    '{"foreign": "x"}': "unknown is foreign",
    "{}": "the foreign id has 0 characters",
    '{"foreign_id": "x", "start_at": "LOST"}': "there is no status 'LOST'",
    '{"foreign_id": "x", "start_at": "DONE"}': "cannot start at DONE",
    '{"foreign_id": "x", "idempotency_key": 3}': "the idempotency key is a int",
    '{"foreign_id": "x", "initial_value": {"amount": "much"}}': "order.amount: expected int",
}


def test_lines_that_start_nothing_are_told_and_do_not_hold_up_the_others(store: Store) -> None:
    path = store.input(*BAD, store.line("good"))
    with child(store.folder / "child", *store.run("--input", path)) as process:
        result = process.end()
    assert result.status == 1
    for number, told in enumerate(BAD.values(), 1):
        assert any(line.startswith(f"{path}:{number}: ") and told in line for line in result.err.splitlines()), told
    assert f"{len(BAD) + 1} lines: 1 completed, {len(BAD)} not started" in result.err
    assert store.histories() == {"good": DONE}


def test_paused_runs_end_the_command_when_nothing_else_moves(store: Store) -> None:
    path = store.input(store.line("asks", ask=True), store.line("fine"))
    with child(store.folder / "child", *store.run("--input", path, "--json")) as process:
        result = process.end()
    assert result.status == 1
    assert "2 lines: 1 completed, 1 paused" in result.err
    assert "): somebody has to look" in result.err
    assert sorted(values["run_state"] for values in result.values) == ["COMPLETED", "PAUSED"]

    assert main(["resume", "asks", "--store", store.url]) == 0
    with child(store.folder / "again", *store.run("--input", path)) as process:
        result = process.end()
    assert result.status == 0
    assert "2 lines: 2 completed (1 had ended before)" in result.err


def test_a_run_that_is_resumed_meanwhile_counts_as_what_becomes_of_it(store: Store) -> None:
    path = store.input(store.line("asks", ask=True), store.line("gated", gate=str(store.gate)))
    with child(store.folder / "child", *store.run("--input", path)) as process:
        store.wait_for_step()
        wait_until(lambda: len(store.histories().get("asks", [])) == 2, "the pause")
        assert main(["resume", "asks", "--store", store.url]) == 0
        store.gate.touch()
        result = process.end()
    assert result.status == 0


def test_ctrl_c_tells_how_far_it_is_and_the_same_command_goes_on(store: Store) -> None:
    path = store.input(store.line("fine"), store.line("gated", gate=str(store.gate)))
    with child(store.folder / "child", *store.run("--input", path)) as process:
        store.wait_for_step()
        process.process.send_signal(signal.SIGINT)
        process.wait_for("stopping")
        store.gate.touch()
        result = process.end()
    assert result.status == 1
    assert "the same command goes on" in result.err
    with child(store.folder / "again", *store.run("--input", path)) as process:
        assert process.end().status == 0
    assert store.histories()["fine"] == DONE
    assert store.histories()["gated"][-1] == "DONE"


def test_a_killed_command_goes_on_and_doubles_nothing(store: Store) -> None:
    names = [f"order-{number}" for number in range(3000)]
    path = store.input(*(store.line(name) for name in names))
    kills = 0
    for share in (0.1, 0.5):
        with child(store.folder / f"child-{share}", *store.run("--input", path)) as process:
            wait_until(partial(reached, store, process, share * len(names)), "some runs")
            kills += not ended(process)
            process.kill()
    assert kills, "the machine was too fast for this test"
    with child(store.folder / "last", *store.run("--input", path)) as process:
        assert process.end().status == 0
    found = store.histories()
    assert sorted(found) == sorted(names)
    # A run that was in hand at the kill is marked as suspect first: one more version in the same status.
    assert {tuple(dict.fromkeys(went)) for went in found.values()} == {tuple(DONE)}
    assert all(went.count("PAID") <= 3 and went.count("DONE") == 1 for went in found.values())


def reached(store: Store, process: Child, count: float) -> bool:
    return ended(process) or done(store) > count


def done(store: Store) -> int:
    if not (store.folder / "shop.db").exists():
        return 0
    adapters = sqlite(store.folder / "shop.db")
    try:
        console = Console(adapters, "shop")
        return console.counts().get((int(Status.DONE), RunState.COMPLETED), 0)
    except ValueError:
        return 0  # not served yet
    finally:
        adapters.close()


def ended(process: Child) -> bool:
    return process.process.poll() is not None


def test_a_file_may_grow_and_an_own_key_holds_across_files(store: Store) -> None:
    first = store.line("a") | {"idempotency_key": "2024/1"}
    with child(store.folder / "1", *store.run("--input", store.input(first))) as process:
        assert process.end().status == 0
    grown = store.input({"foreign_id": "a", "idempotency_key": "2024/1"}, store.line("b"))
    with child(store.folder / "2", *store.run("--input", grown)) as process:
        assert process.end().status == 0
    assert store.histories() == {"a": DONE, "b": DONE}


def test_other_lines_under_the_same_name_are_other_lines(store: Store) -> None:
    for number in (1, 2):
        path = store.input(store.line("a", amount=number))
        with child(store.folder / str(number), *store.run("--input", path)) as process:
            assert process.end().status == 0
    assert store.histories() == {"a": [*DONE, *DONE]}


def test_progress_is_shown_on_a_terminal(store: Store) -> None:
    path = store.input(store.line("fine"), store.line("gated", gate=str(store.gate)))
    env = environment(TERM="xterm")
    with child(store.folder / "child", *store.run("--input", path), env=env, tty=True) as process:
        process.wait_for("1 of 2 ended · 1 running")
        store.gate.touch()
        result = process.end()
    assert result.status == 0
    assert "█" in result.out


def test_the_target_may_be_a_callable(store: Store) -> None:
    arguments = ("run", "tests.cli.shop:keeping", "--store", store.url, "--input", store.input(store.line("a")))
    with child(store.folder / "child", *arguments) as process:
        assert process.end().status == 0


def test_a_failing_import_is_told_in_one_line(store: Store) -> None:
    (store.folder / "child").mkdir()
    (store.folder / "child" / "broken.py").write_text("import no_such_package\n")
    env = environment(PYTHONPATH=os.pathsep.join([environment()["PYTHONPATH"], "."]))
    with child(store.folder / "child", "run", "broken:shop", "--store", "memory://", env=env) as process:
        result = process.end()
    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "importing broken failed: broken.py:1: No module named 'no_such_package'" in result.err

"""The commands that look at a store and act on its runs."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shop
from tests.cli.shop import Order
from tests.cli.support import DEADLINE, SHOP, Cli, child, environment
from workflow import RunState, Transition, memory
from workflow.cli import look

# --- looking --------------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_the_names_of_their_statuses_newest_first(cli: Cli, served: Shop) -> None:
    result = cli("runs")
    assert (result.status, result.err) == (0, "")
    head, *rows = [line.split() for line in result.out.splitlines()]
    assert head[:4] == ["RUN", "FOREIGN", "ID", "STATUS"]
    assert [row[:4] for row in rows] == [
        [served.ids["fails"], "fails", "NEW", "paused,"],
        [served.ids["asks"], "asks", "NEW", "paused"],
        [served.ids["sent"], "sent", "SENT", "running"],
        [served.ids["done"], "done", "DONE", "completed"],
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--status NEW", ["fails", "asks"]),
        ("--status new --status 3", ["fails", "asks", "sent"]),
        ("--state paused --state completed", ["fails", "asks", "done"]),
        ("--state data-deleted", []),
        ("--foreign-id sent", ["sent"]),
        ("--limit 2", ["fails", "asks"]),
        ("--limit 2 --all", ["fails", "asks", "sent", "done"]),
        ("--workflow shop --status DONE", ["done"]),
    ],
)
def test_runs_are_filtered(cli: Cli, options: str, expected: list[str]) -> None:
    result = cli("runs", "--json", *options.split())
    assert result.status == 0
    assert [values["foreign_id"] for values in result.values] == expected


def test_a_limit_that_hides_runs_is_told(cli: Cli) -> None:
    assert "--all" in cli("runs", "--limit", "3").err
    assert cli("runs", "--limit", "4").err == ""


def test_json_has_every_field_of_the_record(cli: Cli, served: Shop) -> None:
    (values,) = cli("runs", "--json", "--foreign-id", "fails").values
    expected = {"run_id": served.ids["fails"], "status": 1, "status_name": "NEW", "run_state": "PAUSED", "attempt": 2}
    assert expected.items() <= values.items()
    assert values["object"] == {"amount": -1, "gate": "", "ask": False}
    assert "ValueError: a negative amount" in values["error"]


@pytest.mark.parametrize("name", ["foreign id", "run id"])
def test_a_run_is_shown_with_its_history(cli: Cli, served: Shop, name: str) -> None:
    result = cli("show", "fails" if name == "foreign id" else served.ids["fails"])
    assert (result.status, result.err) == (0, "")
    for expected in (
        served.ids["fails"],
        '"amount": -1',
        "ValueError: a negative amount",
        "started in NEW by test",
        "attempt 1 failed: ValueError at shop.py:",
        "paused: pay failed 2 times, at last with ValueError",
    ):
        assert expected in result.out


def test_a_run_is_one_json_object(cli: Cli) -> None:
    (values,) = cli("show", "sent", "--json").values
    assert [row["status_name"] for row in values["history"]] == ["NEW", "SENT"]
    assert [item["name"] for item in values["items"]] == ["lost"]


def test_items_are_listed(cli: Cli, served: Shop) -> None:
    row = cli("items").out.splitlines()[1]
    assert "timeout  lost  SENT    in 2 d" in row
    assert served.ids["sent"] in row
    assert [item["status_name"] for item in cli("items", "sent", "--json").values] == ["SENT"]
    assert cli("items", "done", "--json").values == []


def test_workflows_are_listed(cli: Cli) -> None:
    assert "1 running 2 paused 1 completed" in cli("workflows").out
    (values,) = cli("workflows", "--json").values
    assert values["edges"] == {"NEW": ["PAID", "SENT"], "PAID": ["DONE"], "SENT": ["DONE"], "DONE": []}
    assert values["runs"] == {"running": 1, "paused": 2, "completed": 1}


def test_the_diagram_comes_from_the_store_or_from_the_code(cli: Cli) -> None:
    assert "NEW --> PAID\n" in cli("diagram").out
    assert "NEW --> PAID: pay\n" in cli.bare("diagram", SHOP).out
    assert cli("diagram", "--workflow", "shop", "--json").values[0]["workflow_name"] == "shop"


def test_text_from_the_store_cannot_play_with_the_terminal(cli: Cli, served: Shop) -> None:
    served.workflow.trigger("evil\x1b[2J", initial_value=Order(), reason="a\nb\x07")
    for command in (("runs",), ("show", "evil\x1b[2J")):
        out = cli(*command).out
        assert "evil\\x1b[2J" in out
        assert "\x1b" not in out
        assert "\x07" not in out


# --- acting ---------------------------------------------------------------------------------------------------------


def last(served: Shop, name: str) -> Transition:
    return served.workflow.history(served.ids[name])[-1]


def test_actions_leave_who_did_them_and_why(cli: Cli, served: Shop) -> None:
    result = cli("resume", "asks", "--reason", "I looked", "--by", "mia")
    assert result.status == 0
    assert f"resume: asks ({served.ids['asks']}) in NEW was paused, is running" in result.out
    row = last(served, "asks")
    assert (row.run_state, row.by, row.reason) == (RunState.RUNNING, "mia", "I looked")

    cli("pause", served.ids["asks"])
    assert (last(served, "asks").run_state, last(served, "asks").by) == (RunState.PAUSED, getpass.getuser())
    (values,) = cli("cancel", "asks", "--json").values
    assert (values["command"], values["run_state"]) == ("cancel", "CANCELLED")


def test_data_is_deleted_by_run_id_alone(cli: Cli, served: Shop) -> None:
    result = cli("delete-data", "done")
    assert result.status == 1
    assert served.ids["done"] in result.err
    assert cli("delete-data", served.ids["done"]).status == 0
    assert last(served, "done").run_state is RunState.DATA_DELETION_REQUESTED


def test_an_item_is_made_due(cli: Cli, served: Shop) -> None:
    (item,) = served.workflow.items(served.ids["sent"]).items
    assert cli("retry", item.id).out == f"retry: item {item.id} is due now\n"
    assert " ago" in cli("items").out or " now " in cli("items").out


def test_a_run_in_backoff_is_made_due(cli: Cli, served: Shop) -> None:
    run_id = served.workflow.trigger("later", initial_value=Order(), delay=3600)
    assert cli("retry", "later", "--by", "mia").status == 0
    row = served.workflow.history(run_id)[-1]
    assert row.by == "mia"
    assert "tried again at once by mia" in cli("show", "later").out


def test_one_run_that_cannot_be_acted_on_does_not_keep_the_others_from_it(cli: Cli, served: Shop) -> None:
    result = cli("pause", "done", "nobody", "sent")
    assert result.status == 1
    assert len(result.err.splitlines()) == 2
    assert "done: pause: " in result.err
    assert "nobody: this store has no run" in result.err
    assert last(served, "sent").run_state is RunState.PAUSED


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("", 2, "required: COMMAND"),
        ("frob", 2, "invalid choice: 'frob'"),
        ("runs --limit 0", 2, "'0' is no whole number"),
        ("runs --limit many", 2, "'many' is no whole number"),
        ("runs", 2, "give --store sqlite:///FILE"),
        ("runs --store shop.db", 2, "write sqlite:///orders.db"),
        ("runs --store sqlite:///nowhere/shop.db", 2, "there is no store nowhere/shop.db"),
        ("runs --store sqlite://shop.db", 2, "three slashes"),
        ("runs --store mysql://host/db", 2, "no adapters 'mysql'"),
        ("run shop --store memory://", 2, "write MODULE:WORKFLOW"),
        ("run no_such_shop:shop --store memory://", 2, "no module no_such_shop"),
        ("run tests.cli.shop:nothing --store memory://", 2, "has no nothing; it has shop"),
        ("run tests.cli.shop:number --store memory://", 2, "is a int"),
        ("run tests.cli.shop:no_workflow --store memory://", 2, "returned a int"),
        ("run tests.cli.shop:shop --store memory:// --input nowhere.jsonl", 2, "no file nowhere.jsonl"),
        ("diagram --store memory://", 2, "this store knows none"),
        ("show nobody --store memory://", 1, "no run 'nobody'"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(cli: Cli, arguments: str, status: int, told: str) -> None:
    result = cli.bare(*arguments.split())
    assert (result.status, result.out) == (status, "")
    assert told in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("runs --workflow nobody", "those that were: shop"),
        ("runs --status LOST", "it has NEW, PAID, SENT, DONE"),
        ("pause done", "is COMPLETED"),
        ("retry asks", "resume it"),
        ("diagram --workflow nobody", "those that were: shop"),
    ],
)
def test_what_the_store_does_not_have_is_one_line_too(cli: Cli, command: str, told: str) -> None:
    result = cli(*command.split())
    assert result.status in (1, 2)
    assert told in result.err
    assert len(result.err.splitlines()) == 1


def test_a_tool_makes_no_file(cli: Cli, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    assert cli.bare("runs", "--store", f"sqlite:///{tmp_path}/other.db").status == 2
    assert sorted(tmp_path.iterdir()) == before


def fail(*arguments: object) -> Any:
    raise RuntimeError("a bug\nof ours")


def test_a_trace_is_shown_with_debug_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "consoles", fail)
    result = cli("runs")
    assert result.status == 1
    assert result.err.endswith("runs: RuntimeError: a bug; of ours; --debug shows where\n")
    with pytest.raises(RuntimeError, match="a bug"):
        cli("runs", "--debug")


def test_ctrl_c_ends_a_tool_quietly(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(look, "consoles", interrupted)
    assert cli("runs").status == 130


def test_a_reader_that_goes_away_is_no_error(served: Shop, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "workflow", "runs", "--store", served.url]
    try:
        process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment(), cwd=tmp_path)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        os.close(theirs)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals(served: Shop, tmp_path: Path, more: dict[str, str], coloured: bool) -> None:
    env = environment(TERM="xterm") | more
    with child(tmp_path / "child", "show", "done", "--store", served.url, env=env, tty=True) as process:
        result = process.end()
    assert result.status == 0
    assert ("\x1b[32mcompleted" in result.out) is coloured
    assert ("\x1b" in result.out) is coloured


def test_a_store_from_the_environment(served: Shop, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", served.url)
    assert len(cli.bare("runs", "--json").values) == 4


def test_a_store_that_was_never_served_says_so(cli: Cli) -> None:
    memory().close()
    result = cli.bare("workflows", "--store", "memory://")
    assert (result.status, result.err) == (0, "no workflow was ever served on this store\n")

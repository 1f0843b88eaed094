"""`demo`: it ends well, tells what happened, and leaves nothing behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.support import child, environment
from workflow.cli.main import main
from workflow.cli.stage import CAST


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """The folder for temporary files of the children."""
    folder = tmp_path / "temp"
    folder.mkdir()
    return folder


def test_it_tells_what_happened_and_why(tmp_path: Path, temp: Path) -> None:
    with child(tmp_path / "child", "demo", env=environment(TMPDIR=str(temp))) as process:
        result = process.end()
    assert (result.status, result.err) == (0, "")
    for expected in (
        "order-05  attempt 2 failed: BankDown at demo.py:",
        "paused: 1800 is over the limit of 1000",
        "resumed by mia: a customer we know",
        "order-08  cancelled  the bank never accepts the card",
        "paused: charge failed 4 times, at last with BankDown",
        "stays in PACKED (timer remind)",
        "order-10  REFUNDED   the courier never confirms",
        "cancelled by customer: I found it cheaper",
        "12 runs, ",
        "charged 11 orders, each once",
        "12 mails were sent by hooks",
        "demo.py",
    ):
        assert expected in result.out
    assert "\x1b" not in result.out
    assert list(temp.iterdir()) == []


def test_on_a_terminal_each_order_has_a_line_that_grows(tmp_path: Path, temp: Path) -> None:
    env = environment(TMPDIR=str(temp), TERM="xterm", LINES="40", COLUMNS="100")
    with child(tmp_path / "child", "demo", env=env, tty=True) as process:
        result = process.end()
    assert result.status == 0
    assert "order-07  PLACED paused\x1b" in result.out
    assert "order-07  PLACED paused resumed → PAID → PACKED → DELIVERED\x1b" in result.out
    assert "\x1b[14F" in result.out


def test_for_programs_each_change_is_a_line(tmp_path: Path, temp: Path) -> None:
    with child(tmp_path / "child", "demo", "--json", env=environment(TMPDIR=str(temp))) as process:
        result = process.end()
    assert result.status == 0
    assert {values["foreign_id"] for values in result.values} == {part.foreign_id for part in CAST}
    assert {"started", "failed", "paused", "resumed", "stayed", "cancelled"} < {
        each["happened"] for each in result.values
    }
    assert "12 runs, " in result.err


def test_a_kept_store_can_be_looked_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "child"
    with child(folder, "demo", "--keep", "demo.db") as process:
        assert process.end().status == 0
    assert f"sqlite:///{'demo.db'}" in (folder / "out").read_text(encoding="utf-8")
    assert main(["show", "order-07", "--store", f"sqlite:///{folder}/demo.db"]) == 0
    assert "resumed by mia" in capsys.readouterr().out
    assert main(["demo", "--keep", f"{folder}/demo.db"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, temp: Path, times: int) -> None:
    with child(tmp_path / "child", "demo", env=environment(TMPDIR=str(temp))) as process:
        process.wait_for("order-01  started")
        for _ in range(times):
            process.process.send_signal(signal.SIGINT)
            process.wait_for("stopping")
        result = process.end()
    assert result.status == 130
    assert list(temp.iterdir()) == []

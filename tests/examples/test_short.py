"""The short examples of docs/examples: they do what they say."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import workflow
from docs.examples import nightly, virtual_clock
from workflow.testing import VirtualClock, eventually

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "docs" / "examples"


def test_the_virtual_clock() -> None:
    virtual_clock.test_one_function_alone()
    virtual_clock.test_two_days()


def test_a_night_has_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    clock = VirtualClock()
    wf = nightly.b.build(workflow.memory(clock=clock), clock=clock)
    with wf:
        nightly.plan(wf)
        nightly.plan(wf)
        clock.advance(timedelta(days=1))
        eventually(lambda: all(night.status is nightly.Report.SENT for night in wf.list().items))
        assert len(wf.list().items) == 1
    assert capsys.readouterr().out == "night of 2024-01-01: 42 sold\n"


def test_the_nightly_process_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "nightly.py"), "--store", str(tmp_path / "nightly.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        process.send_signal(signal.SIGTERM)
        told, errors = process.communicate(timeout=60)
    assert (process.returncode, told, errors) == (0, "", "")

"""Strict mypy and pyright accept what users should write, with no `ignore`, and refuse what would fail when it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USAGE = Path(__file__).with_name("usage.txt")


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    """The file as Python, in a project of its own beside the package."""
    file = tmp_path / "usage.py"
    shutil.copy(USAGE, file)
    return file


def expected() -> set[int]:
    lines = USAGE.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


def test_mypy(usage: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-incremental", usage.name],
        cwd=usage.parent,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = {int(line.split(":")[1]) for line in told.stdout.splitlines() if ": error:" in line}
    assert errors == expected(), told.stdout + told.stderr


def test_pyright(usage: Path) -> None:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "include": ["usage.py"]}
    (usage.parent / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(usage.parent)],
        cwd=usage.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(told.stdout)["generalDiagnostics"]
    errors = {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}
    assert errors == expected(), told.stdout

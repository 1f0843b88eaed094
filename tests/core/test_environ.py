"""Adapters by environment variables, URLs and entry points."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import workflow
from workflow import Adapters, InvalidInput, MissingExtra
from workflow.environ import adapters_from_env, adapters_from_url, file_of, names_of

ROOT = Path(__file__).resolve().parents[2]


def kind_of(adapters: Adapters) -> str:
    """`memory` or `sqlite`. Closes them."""
    adapters.close()
    return type(adapters.record_store).__module__.split(".")[2]


# --- what is asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"WORKFLOW_ADAPTERS": "memory"}, ["memory"]),
        ({"WORKFLOW_ADAPTERS": " Postgres + kafka "}, ["postgres", "kafka"]),
        ({"WORKFLOW_ADAPTERS": "memory", "DATABASE_URL": "postgresql://host/db"}, ["memory"]),
        ({"DATABASE_URL": "sqlite:///orders.db"}, ["sqlite"]),
        ({"DATABASE_URL": "postgresql://host/db"}, ["postgres"]),
        ({"DATABASE_URL": "postgres://host/db"}, ["postgres"]),
        ({"DATABASE_URL": "postgresql+psycopg://host/db"}, ["postgres"]),
        ({"DATABASE_URL": "postgresql://host/db", "KAFKA_BROKERS": "one:9092"}, ["postgres", "kafka"]),
    ],
)
def test_names(environ: dict[str, str], names: list[str]) -> None:
    assert names_of(environ) == names


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "no store is named: set DATABASE_URL, as in sqlite:///orders.db"),
        ({"WORKFLOW_ADAPTERS": "  ", "DATABASE_URL": ""}, "WORKFLOW_ADAPTERS=memory"),
        ({"KAFKA_BROKERS": "one:9092"}, "KAFKA_BROKERS is set, but records need a database"),
        ({"WORKFLOW_ADAPTERS": "postgres+"}, "joined by \\+"),
        ({"WORKFLOW_ADAPTERS": "mysql"}, "no adapters 'mysql': known are kafka, memory, postgres, sqlite"),
        ({"WORKFLOW_ADAPTERS": "sqlite"}, "sqlite needs a file: set DATABASE_URL"),
        ({"WORKFLOW_ADAPTERS": "sqlite", "DATABASE_URL": "postgresql://host/db"}, "sqlite needs a file"),
        ({"DATABASE_URL": "sqlite://orders.db"}, "three slashes"),
        ({"DATABASE_URL": "sqlite:///"}, "names no file"),
        ({"DATABASE_URL": "sqlite:///:memory:"}, "WORKFLOW_ADAPTERS=memory"),
        ({"WORKFLOW_ADAPTERS": "memory+sqlite"}, "can only be the first"),
    ],
)
def test_what_cannot_be_understood_says_what_to_set(environ: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        adapters_from_env(environ)


def test_what_may_be_a_password_is_not_repeated() -> None:
    with pytest.raises(InvalidInput, match="is no URL") as caught:
        adapters_from_url("user:secret@host")
    assert "secret" not in str(caught.value)


# --- the core's own -------------------------------------------------------------------------------------------------


def test_memory() -> None:
    assert kind_of(adapters_from_env({"WORKFLOW_ADAPTERS": "memory"})) == "memory"
    assert kind_of(adapters_from_url("memory://")) == "memory"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_ADAPTERS", "memory")
    assert kind_of(adapters_from_env()) == "memory"


def test_sqlite_relative_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kind_of(adapters_from_url("sqlite:///relative.db", lease_time=1.0)) == "sqlite"
    assert kind_of(adapters_from_url(f"sqlite:///{tmp_path}/absolute.db")) == "sqlite"
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["absolute.db", "relative.db"]
    assert file_of("sqlite:////data/a b.db") == "/data/a b.db"
    assert file_of("postgresql://host/db") is None


def test_a_file_that_must_exist_is_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    with pytest.raises(InvalidInput, match="there is no store"):
        adapters_from_url(url, create=False)
    assert list(tmp_path.iterdir()) == []
    adapters_from_url(url).close()
    adapters_from_url(url, create=False).close()


# --- entry points ---------------------------------------------------------------------------------------------------

PLUGIN = """
from workflow import memory

calls = []

def base(environ, base, **options):
    calls.append(("base", environ["DATABASE_URL"], base, options))
    return memory()

def stream(environ, base, **options):
    calls.append(("stream", environ["KAFKA_BROKERS"], base is not None, options))
    return base.replace(event_streamer=memory().event_streamer)

def failing(environ, base, **options):
    raise RuntimeError("no brokers")
"""

ENTRIES = """
[workflow.adapters]
postgres = my_adapters:base
kafka = my_adapters:stream
failing = my_adapters:failing
lost = my_adapters_lost:base
sqlite = my_adapters:failing
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A distribution that offers adapters. Returns its module."""
    (tmp_path / "my_adapters.py").write_text(PLUGIN)
    metadata = tmp_path / "my_adapters-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-adapters\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_adapters", raising=False)
    importlib.invalidate_caches()
    return importlib.import_module("my_adapters")


BOTH: Mapping[str, str] = {"DATABASE_URL": "postgresql://host/db", "KAFKA_BROKERS": "one:9092"}


def test_names_beyond_the_core_are_entry_points(plugin: Any) -> None:
    assert kind_of(adapters_from_env(BOTH, size=3)) == "memory"
    assert plugin.calls == [("base", "postgresql://host/db", None, {"size": 3}), ("stream", "one:9092", True, {})]


def test_what_was_made_is_closed_if_the_next_part_fails(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    made = workflow.memory().replace(on_close=lambda: closed.append("closed"))
    monkeypatch.setattr(plugin, "memory", lambda: made)
    with pytest.raises(RuntimeError, match="no brokers"):
        adapters_from_env({"WORKFLOW_ADAPTERS": "postgres+failing", "DATABASE_URL": ""})
    assert closed == ["closed"]


def test_nobody_replaces_what_the_core_has(plugin: Any, tmp_path: Path) -> None:
    environ = {"WORKFLOW_ADAPTERS": "sqlite+kafka", "DATABASE_URL": f"sqlite:///{tmp_path}/a.db", "KAFKA_BROKERS": "k"}
    assert kind_of(adapters_from_env(environ)) == "sqlite"


@pytest.mark.parametrize("name", ["postgres", "kafka"])
def test_a_missing_extra_names_the_command_to_type(name: str) -> None:
    found = {"WORKFLOW_ADAPTERS": f"memory+{name}" if name == "kafka" else name}
    with pytest.raises(MissingExtra, match=rf'pip install "workflow-stdlib-contrib\[{name}\]"'):
        adapters_from_env(found)


def test_an_entry_whose_package_is_missing(plugin: Any) -> None:
    with pytest.raises(MissingExtra, match=r"'lost' are not installed .*my_adapters_lost"):
        adapters_from_env({"WORKFLOW_ADAPTERS": "lost"})


def test_entry_points_are_looked_for_only_when_needed() -> None:
    code = (
        "import sys; from workflow.environ import adapters_from_env; "
        "adapters_from_env({'WORKFLOW_ADAPTERS': 'memory'}).close(); print('importlib.metadata' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "False\n"

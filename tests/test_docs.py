"""The documentation, held to the code: its Python runs, its links lead somewhere, its names exist.

Each ```python block of README.md and docs/ is executed, those of one file in order and in one namespace, in a folder of
its own. There is no way to leave one out.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import workflow
from workflow import environ, options
from workflow.cli.arguments import parser
from workflow.options import DEFAULTS
from workflow.testing import eventually

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
LANGUAGES = {"python", "console", "text", "mermaid", "go", ""}

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
CODE_SPAN = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(r"(?<![\w./-])(workflow(?:\.[A-Za-z_]\w*)+)")
METHOD = re.compile(r"(?<![\w.])(?P<owner>wf|api|run|b)\.(?!py\b)(?P<name>[a-z_]\w*)")
OWNERS: dict[str, type] = {
    "wf": workflow.Workflow,
    "api": workflow.Api,
    "b": workflow.Builder,
}


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    info: str
    text: str
    line: int
    """The line of the file on which its text begins."""


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(match["info"].strip(), match["text"], text.count("\n", 0, match.start("text")) + 1)
        for match in FENCE.finditer(text)
    ]


def prose(path: Path) -> str:
    """The file without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


# --- code -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if any(b.info == "python" for b in blocks(ROOT / name))])
def test_its_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # annotations are resolved there
    before = set(threading.enumerate())
    try:
        for block in blocks(ROOT / name):
            if block.info == "python":
                source = "\n" * (block.line - 1) + block.text  # so that a traceback has the file's own lines
                exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    finally:
        for value in list(vars(module).values()):
            if isinstance(value, workflow.Workflow):
                value.adapters.close()
    eventually(lambda: set(threading.enumerate()) <= before, message="a thread is left")


@pytest.mark.parametrize("name", NAMES)
def test_its_blocks_say_what_they_are(name: str) -> None:
    """A block that does not run cannot pass for Python."""
    assert {block.info for block in blocks(ROOT / name)} <= LANGUAGES


def commands(name: str) -> Iterator[list[str]]:
    """What follows `python -m workflow` on each line of a console block."""
    for block in blocks(ROOT / name):
        if block.info == "console":
            for line in block.text.splitlines():
                match = re.match(r"\$ python3? -m workflow (.+)", line)
                if match:
                    yield re.findall(r'"[^"]*"|\S+', match[1].split("  #")[0])


@pytest.mark.parametrize("name", [name for name in NAMES if list(commands(name))])
def test_its_commands_exist(name: str) -> None:
    for arguments in commands(name):
        parser().parse_args(arguments)  # which exits if it does not know them


# --- links ----------------------------------------------------------------------------------------------------------


def targets(path: Path) -> list[str]:
    """Where the file's links lead, those out of the repository left out."""
    found = (match["target"] for match in LINK.finditer(CODE_SPAN.sub("", prose(path))))
    return [target for target in found if "://" not in target]


def anchors(path: Path) -> set[str]:
    """The anchors of a file's headings, as they are made on the web."""
    headings = re.findall(r"^#+ +(.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in targets(path):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{name} links to {target}, which does not exist"
        assert linked.is_relative_to(ROOT), f"{name} links to {target}, outside of the repository"
        assert not anchor or anchor in anchors(linked), f"{name} links to {target}, which is no heading there"


def test_every_page_is_found_from_the_readme() -> None:
    reached, frontier = set[Path](), [ROOT / "README.md"]
    while frontier:
        path = frontier.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        frontier.extend((path.parent / target.partition("#")[0]).resolve() for target in targets(path))
    assert reached >= set(FILES)


# --- vendoring ------------------------------------------------------------------------------------------------------


def test_what_may_be_left_out_is_not_needed(tmp_path: Path) -> None:
    """A copy without it runs the README's five lines, in an interpreter that has nothing else."""
    told = re.findall(r"^\| (`.+`) \|", (ROOT / "docs" / "vendoring.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = [name.strip("`/") for cells in told for name in cells.split(", ")]
    assert "files.py" in names
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__", *names))
    (five_lines,) = (block.text for block in blocks(ROOT / "README.md") if block.info == "python")
    (tmp_path / "five.py").write_text(f"import sys; sys.path.insert(0, '.')\n{five_lines}", encoding="utf-8")
    command = [sys.executable, "-I", "-S", "five.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("DELIVERED\n", "")


# --- names ----------------------------------------------------------------------------------------------------------


def resolve(dotted: str) -> Any:
    """What `workflow.some.name` is: a module, or what a module exports. None if there is no such thing."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        rest = parts[length:]
        if length == 1 and rest and rest[0] not in workflow.__all__:
            return None
        for part in rest:
            found = getattr(found, part, None)
        return found
    return None


NOT_OURS = {
    "workflow.adapters": "an entry-point group",
    "workflow.md": "a file",
}


@pytest.mark.parametrize("name", NAMES)
def test_it_names_what_the_package_exports(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    code = [*CODE_SPAN.findall(prose(ROOT / name)), *(block.text for block in blocks(ROOT / name))]
    wanted = {match for piece in code for match in DOTTED.findall(piece)} - set(NOT_OURS)
    unknown = sorted(dotted for dotted in wanted if resolve(dotted) is None)
    assert not unknown, f"{name} names {', '.join(unknown)}"
    imported = [
        alias.name
        for block in blocks(ROOT / name)
        if block.info == "python"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom) and node.module == "workflow"
        for alias in node.names
    ]
    assert set(imported) <= set(workflow.__all__), text


@pytest.mark.parametrize("name", NAMES)
def test_it_names_methods_that_exist(name: str) -> None:
    spans = [*CODE_SPAN.findall(prose(ROOT / name))]
    found = {(match["owner"], match["name"]) for span in spans for match in METHOD.finditer(span)}
    fields_of_run = {field.name for field in fields(workflow.Run)} | set(dir(workflow.Run))
    unknown = [
        f"{owner}.{method}"
        for owner, method in sorted(found)
        if method not in (fields_of_run if owner == "run" else set(dir(OWNERS[owner])))
    ]
    assert not unknown, f"{name} names {', '.join(unknown)}"


# --- configuration --------------------------------------------------------------------------------------------------

CONFIGURATION = ROOT / "docs" / "configuration.md"
REQUIRED = "required"
HEADINGS = re.findall(r"^## (`workflow\..+`)$", CONFIGURATION.read_text(encoding="utf-8"), re.MULTILINE)


def section(heading: str) -> list[list[str]]:
    """The rows of all tables in a section of the configuration's page, each as its cells."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text, f"there is no section {heading}"
    body = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line[:3] == "| `"]


def documented(heading: str) -> dict[str, object]:
    """The first two cells of each row: a name, and its value."""
    names = {"workflow": workflow, "timedelta": timedelta}
    return {
        row[0].strip("`"): REQUIRED if row[1] == REQUIRED else eval(row[1].strip("`"), names)
        for row in section(heading)
        if not row[0].startswith("`Builder.")
    }


def parameters(function: Callable[..., object]) -> dict[str, object]:
    found = inspect.signature(function).parameters.values()
    return {
        each.name: REQUIRED if each.default is inspect.Parameter.empty else each.default
        for each in found
        if each.name != "self"
    }


@pytest.mark.parametrize("heading", HEADINGS)
def test_defaults_are_as_documented(heading: str) -> None:
    assert documented(heading) == parameters(resolve(heading.strip("`")))


def test_all_that_takes_options_is_documented() -> None:
    told = {heading.strip("`") for heading in HEADINGS}
    assert told >= {"workflow.Builder", "workflow.Builder.build", "workflow.sqlite", "workflow.memory"}


def test_options_are_as_documented() -> None:
    assert documented("Options of functions") == DEFAULTS._asdict()
    assert set(documented("Options of functions")) == set(parameters(resolve("workflow.Builder.defaults")))


def test_arguments_of_decorators_are_as_documented() -> None:
    told = {row[0].strip("`"): row[1].replace("`", "").split() for row in section("Options of functions")}
    decorators = {name.removeprefix("Builder."): names for name, names in told.items() if name.startswith("Builder.")}
    public = {name for name in vars(workflow.Builder) if not name.startswith("_")} - {"build", "defaults"}
    assert set(decorators) == public
    for name, names in decorators.items():
        assert names == list(parameters(resolve(f"workflow.Builder.{name}"))), name


def test_bounds_are_as_documented() -> None:
    bounds = {name: value for name, value in vars(options).items() if name.isupper() and name != "DEFAULTS"}
    assert documented("Bounds that are fixed") == bounds


def test_variables_are_as_documented() -> None:
    told = {row[0].strip("`") for row in section("Environment")}
    assert told == set(re.findall(r"^ +([A-Z_]{6,})  ", environ.__doc__ or "", re.MULTILINE))

"""The rules of the code in `workflow/`, each as a test over its syntax trees.

Order: `workflow/__init__.py`'s docstring lists the modules in the order in which they are read, chapter by chapter, and
a module imports only what was read before it. The list is taken from there, so the docstring cannot be wrong.

Size, seams and manners: small functions and modules; time, waiting, threads, ids and chance only where they are taken
from the machine; nothing swallowed, nothing hidden. An exception to a rule stands in a table here, with its reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "workflow"

CHAPTERS = ("vocabulary", "contracts", "data path", "joins", "assembly", "around")
UNLISTED = ("__init__", "__main__", "version")  # the table of contents itself, the command, one constant

MAX_FUNCTION_LINES = 70
MAX_MODULE_LINES = 450
LONG_MODULES = {  # file: its limit, and why
    "protocols.py": (650, "the whole contract on one page: declarations and what they mean, no logic"),
}

SEAMS = (  # what is taken from the machine: a name, or a whole module
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "os.getrandom",
    "os.urandom",
    "threading.Barrier",
    "threading.BoundedSemaphore",
    "threading.Condition",
    "threading.Event",
    "threading.Semaphore",
    "threading.Thread",
    "threading.Timer",
    "_thread",
    "asyncio",
    "concurrent.futures",
    "multiprocessing",
    "queue",
    "random",
    "sched",
    "secrets",
    "time",
    "uuid.getnode",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid.uuid6",
    "uuid.uuid7",
)

SEAM_MODULES: dict[
    str, tuple[tuple[str, ...], str]
] = {  # file, or folder with a slash: which seams it may use, and why
    "clock.py": (SEAMS, "it is the seam"),
    "adapters/sqlite/": (("threading.Condition",), "it waits for the database's own write lock, between processes"),
    "cli/": (("threading.Event", "time.sleep"), "it is a program of its own, which waits for Ctrl-C"),
    "testing/clock.py": (("threading.Condition", "threading.Thread"), "a virtual clock that real threads sleep on"),
}

LAZY_IMPORTS = {  # function, or folder with a slash: why it may import late
    "_standard_logger": "logging costs milliseconds, and another logger may be given",
    "next_slot": "cron costs milliseconds, and few workflows have schedules",
    "frames_of": "traceback costs milliseconds, and most runs raise nothing",
    "trace_of": "traceback costs milliseconds, and most runs raise nothing",
    "_load_named_zone": "time zones cost milliseconds, and few schedules need more than UTC",
    "adapters_from_env": "loads only the adapters that the environment names",
    "cli/": "a command loads what it needs, so that --help is quick",
}

DANGEROUS = ("eval", "exec", "compile", "__import__", "pickle", "marshal", "shelve", "ctypes", "builtins")


# --- reading the code -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: Path

    @property
    def file(self) -> str:
        """Its path inside the package, as in `adapters/memory/store.py`."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def entry(self) -> str:
        """The name under which the reading order lists it: a module, or the folder that it is in."""
        return self.file.split("/")[0].removesuffix(".py")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), self.file)

    @cached_property
    def names(self) -> dict[str, str]:
        """What each imported name stands for: `{"sleep": "time.sleep"}`."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    imported = alias.name if alias.asname else alias.name.split(".")[0]
                    found[alias.asname or imported] = imported
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def dotted(self, node: ast.expr) -> str:
        """The full name of what an expression such as `datetime.now` stands for; empty if it is no plain name."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self.dotted(node.value)):
            return f"{owner}.{node.attr}"
        return ""

    def is_imported(self, node: ast.expr) -> bool:
        """Whether the expression is a plain name that starts at an import, and not at a variable."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self.names

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of each absolute import, those under `if TYPE_CHECKING` too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)

    def self_imports(self) -> Iterator[tuple[int, str]]:
        """Line and listed name of each part of the package that it imports; `__init__` for names of the package."""
        folders = self.file.split("/")[:-1]
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.ImportFrom) or node.level == 0:
                continue
            start = folders[: len(folders) - (node.level - 1)]
            base = [*start, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                target = base[0] if base else alias.name
                yield node.lineno, target if is_entry(target) else "__init__"


def is_entry(name: str) -> bool:
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def reading_order(docstring: str) -> list[str]:
    """The entries of the table of contents: `  joins  control, cron (of time), …`, on one line or several."""
    listed: list[str] = []
    in_table = False
    for line in docstring.splitlines():
        start = re.match(rf" *(?:{'|'.join(CHAPTERS)}) {{2,}}(.*)", line)
        more = in_table and re.match(r" {6,}(\S.*)", line)
        in_table = bool(start or more)
        if match := start or more:
            plain = re.sub(r"\([^)]*\)?|\{[^}]*\}", "", match[1])  # remarks and the parts of folders are for people
            listed += re.findall(r"\w+", plain)
    return listed


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
ORDER = reading_order(ast.get_docstring(Module(PACKAGE / "__init__.py").tree, clean=False) or "")


def report(rule: str, problems: list[str]) -> None:
    """Fail with one line for each problem."""
    if problems:
        pytest.fail("\n  ".join([rule, *problems]), pytrace=False)


def _covers(key: str, file: str) -> bool:
    return file.startswith(key) if key.endswith("/") else file == key


def _is_part_of(name: str, whole: str) -> bool:
    return name == whole or name.startswith(f"{whole}.")


# --- order ----------------------------------------------------------------------------------------------------------


def test_the_table_of_contents_lists_what_exists() -> None:
    entries = {module.entry for module in MODULES} - set(UNLISTED)
    problems = [f"{name}: listed, but there is no such module" for name in ORDER if not is_entry(name)]
    problems += [f"{name}: not listed" for name in sorted(entries - set(ORDER))]
    problems += [f"{name}: listed twice" for name in sorted(set(ORDER)) if ORDER.count(name) > 1]
    report("the docstring of workflow/__init__.py lists every module once, by chapter:", problems)


def is_read_before(earlier: str, later: str) -> bool:
    """Whether `later` may import `earlier`. Whatever is not listed is reported elsewhere."""
    if later == "__main__" or earlier in ("version", later):
        return True
    if earlier == "__init__":  # it imports the whole engine, so only what is around it can come after
        return later in ORDER[ORDER.index("adapters") + 1 :] if "adapters" in ORDER else True
    if earlier not in ORDER or later not in ORDER:
        return earlier != "__main__"
    return ORDER.index(earlier) < ORDER.index(later)


def imports_of_what_comes_later(module: Module) -> Iterator[str]:
    if module.file != "__init__.py":
        for line, target in module.self_imports():
            if not is_read_before(target, module.entry):
                yield f"{module.file}:{line}: imports {target}, which is read later than {module.entry}"


def imports_from_outside(module: Module) -> Iterator[str]:
    for line, name in module.imports():
        top = name.split(".")[0]
        if top == "workflow":
            yield f"{module.file}:{line}: {name}: self-imports are relative, so that a vendored copy works"
        elif top not in sys.stdlib_module_names:
            yield f"{module.file}:{line}: {name} is not in the standard library"


def imports_inside_functions(module: Module) -> Iterator[str]:
    if any(_covers(key, module.file) for key in LAZY_IMPORTS):
        return
    for function in functions(module.tree):
        if function.name in LAZY_IMPORTS:
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield f"{module.file}:{node.lineno}: import inside {function.name}()"


# --- size -----------------------------------------------------------------------------------------------------------


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def long_functions(module: Module) -> Iterator[str]:
    for function in functions(module.tree):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MAX_FUNCTION_LINES:
            yield f"{module.file}:{function.lineno}: {function.name}() has {length} lines"


def long_module(module: Module) -> Iterator[str]:
    length = len(module.path.read_text(encoding="utf-8").splitlines())
    limit, _ = LONG_MODULES.get(module.file, (MAX_MODULE_LINES, ""))
    if length > limit:
        yield f"{module.file}: {length} lines"


# --- seams ----------------------------------------------------------------------------------------------------------


def uses_of_the_machine(module: Module) -> Iterator[str]:
    allowed = [seam for key, (seams, _) in SEAM_MODULES.items() if _covers(key, module.file) for seam in seams]
    for line, name in names_used(module):
        is_seam = any(_is_part_of(name, seam) for seam in SEAMS)
        if is_seam and not any(_is_part_of(name, other) for other in allowed):
            yield f"{module.file}:{line}: {name}; take it from the clock or the runtime"


def names_used(module: Module) -> Iterator[tuple[int, str]]:
    """Each name imported from a module, and each attribute of an imported module, with its line."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and module.is_imported(node):
            yield node.lineno, module.dotted(node)


# --- manners --------------------------------------------------------------------------------------------------------


def missing_docstring(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield f"{module.file}: no docstring that says what it is for"


def swallowed_exceptions(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{module.file}:{node.lineno}: bare except"
        elif isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and all(map(_is_idle, node.body)):
            yield f"{module.file}:{node.lineno}: any exception is caught and dropped"
        elif isinstance(node, ast.Call) and _suppresses_all(module, node):
            yield f"{module.file}:{node.lineno}: any exception is suppressed"


def _suppresses_all(module: Module, call: ast.Call) -> bool:
    return module.dotted(call.func) == "contextlib.suppress" and any(map(_is_broad, call.args))


def _is_broad(node: ast.expr | None) -> bool:
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return any(isinstance(part, ast.Name) and part.id in ("Exception", "BaseException") for part in parts)


def _is_idle(node: ast.stmt) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # `...` or a remark
    return is_constant or isinstance(node, ast.Pass | ast.Continue)


def dangerous_names(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and (name := module.dotted(node.func)) in DANGEROUS:
            yield f"{module.file}:{node.lineno}: {name}"
    for line, name in module.imports():
        if name.split(".")[0] in DANGEROUS:
            yield f"{module.file}:{line}: {name}"


RULES: dict[str, Callable[[Module], Iterator[str]]] = {
    "a module imports only what is read before it": imports_of_what_comes_later,
    "only the standard library, and itself relatively": imports_from_outside,
    "no imports inside functions": imports_inside_functions,
    f"no function over {MAX_FUNCTION_LINES} lines": long_functions,
    f"no module over {MAX_MODULE_LINES} lines": long_module,
    "time, waits, threads, ids and chance are injected": uses_of_the_machine,
    "every module has a docstring": missing_docstring,
    "no exception is swallowed": swallowed_exceptions,
    "no eval, exec, pickle or the like": dangerous_names,
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    report(f"{rule}:", [problem for module in MODULES for problem in RULES[rule](module)])


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("from .zebra import x", "a module imports only what is read before it"),
        ("if TYPE_CHECKING:\n    from . import zebra", "a module imports only what is read before it"),
        ("from . import Builder", "a module imports only what is read before it"),
        ("import workflow.errors", "only the standard library, and itself relatively"),
        ("import requests", "only the standard library, and itself relatively"),
        ("def f():\n    import json", "no imports inside functions"),
        ("def f():\n" + "    x = 1\n" * 70, "no function over 70 lines"),
        ("x = 1\n" * 451, "no module over 450 lines"),
        ("from time import sleep", "time, waits, threads, ids and chance are injected"),
        ("import time as t\nt.monotonic()", "time, waits, threads, ids and chance are injected"),
        ("import datetime\ndatetime.datetime.now()", "time, waits, threads, ids and chance are injected"),
        ("from datetime import datetime as d\nd.now()", "time, waits, threads, ids and chance are injected"),
        ("from uuid import uuid4", "time, waits, threads, ids and chance are injected"),
        ("import threading\nclass T(threading.Thread): ...", "time, waits, threads, ids and chance are injected"),
        ("x = 1", "every module has a docstring"),
        ("try:\n    f()\nexcept:\n    g()", "no exception is swallowed"),
        ("try:\n    f()\nexcept (KeyError, Exception):\n    pass", "no exception is swallowed"),
        ("import contextlib\nwith contextlib.suppress(Exception):\n    f()", "no exception is swallowed"),
        ("eval('1')", "no eval, exec, pickle or the like"),
        ("from pickle import loads", "no eval, exec, pickle or the like"),
    ],
)
def test_the_rules_see_what_they_forbid(
    source: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"apple": source, "zebra": '"""Read last."""'}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    monkeypatch.setitem(globals(), "ORDER", ["apple", "zebra", "adapters"])
    apple = Module(tmp_path / "apple.py")
    found = {name for name, check in RULES.items() if list(check(apple))}
    assert found - {"every module has a docstring"} == {rule} - {"every module has a docstring"}
    assert rule in found


def test_the_reading_order_is_read_from_a_table_of_contents() -> None:
    docstring = """What it is.

      vocabulary  errors, cancel,
                  clock
      contracts   protocols
      data path   trigger, transition (THE write path, or so), commit
      around      adapters/{support,memory,sqlite}/, observe/ (metrics, logs), web/, testing

    Then, more text, with commas.
    """
    expected = "errors cancel clock protocols trigger transition commit adapters observe web testing"
    assert reading_order(docstring) == expected.split()


# --- all of the repository ------------------------------------------------------------------------------------------

FOLDERS = ("workflow", "workflow_contrib", "conformance", "tests")
MACHINE_PATH = re.compile(r"""["'\s=(](/(?:home|root|Users|work|tmp|opt|usr)/[\w.-]+|[A-Z]:\\\\?[\w.-]+)""")
IGNORE = re.compile(r"#\s*((?:type|pyright|mypy):\s*ignore(?:\[[^\]]*\])?)(.*)")


def lines_of_code() -> Iterator[tuple[str, str]]:
    """Each line of Python with its place. This file is left out, since it has to name what it looks for."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != Path(__file__).resolve():
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                    yield f"{path.relative_to(ROOT).as_posix()}:{number}", line


def test_no_path_of_one_machine() -> None:
    found = [f"{place}: {match[1]}" for place, line in lines_of_code() if (match := MACHINE_PATH.search(line))]
    report("no absolute path that only some machines have:", found)


def test_every_ignore_is_explained() -> None:
    found = [
        f"{place}: {match[1]}: say why, after it"
        for place, line in lines_of_code()
        if (match := IGNORE.search(line)) and len(match[2].strip(" #-:")) < 8
    ]
    report("no checker is silenced without a reason:", found)

"""What is shipped: the wheel's contents, the price of importing it, and copies of the folder in odd places.

Imports are tried in fresh interpreters, with `-I -S`: no site-packages, no environment variables, no current folder, so
nothing but the standard library and what the test puts on the path is there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "workflow"
OPTIONAL = ("web", "cli", "simulation", "observe")
MAX_IMPORT_SECONDS = 0.060


def shipped_files() -> set[str]:
    """Every file of the package in the checkout, relative to the root."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def run_python(*arguments: str) -> str:
    """Run a fresh, isolated interpreter that warns of everything. Returns its output; fails with its errors."""
    command = [sys.executable, "-I", "-S", "-B", "-W", "error", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


# --- the wheel ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    shutil.copytree(PACKAGE, source / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()  # stands for everything that must not be shipped
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    target = tmp_path_factory.mktemp("wheel")
    result = subprocess.run(
        [sys.executable, "-c", build, str(target)], cwd=source, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_has_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == shipped_files()
    assert "workflow/py.typed" in names


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    version = run_python("-c", f"import runpy; print(runpy.run_path({str(PACKAGE / 'version.py')!r})['__version__'])")
    assert wheel.name == f"workflow_stdlib-{version.strip()}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    headers = metadata.split("\n\n")[0].splitlines()
    assert "Name: workflow-stdlib" in headers
    assert "Requires-Python: >=3.10" in headers
    assert "License-Expression: MIT" in headers
    assert not [line for line in headers if line.startswith("Requires-Dist")]


# --- importing ------------------------------------------------------------------------------------------------------

# Runs in the fresh interpreter. An audit hook sees what the interpreter itself is asked to do; files opened to be read
# as modules are left out, since that is what an import is.
PROBE = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
watched = ("open", "os", "shutil", "socket", "sqlite3", "subprocess", "tempfile")
touched = []
def watch(event, arguments):
    is_source = event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so", ".pyd", ".zip"))
    is_search = event in ("os.listdir", "os.scandir")  # how the import system looks for modules
    if event.split(".")[0] in watched and not is_source and not is_search:
        touched.append(f"{event} {arguments}")
sys.addaudithook(watch)
start = time.perf_counter()
import workflow
seconds = time.perf_counter() - start
watching = list(touched)
import json, logging
known = {*sys.stdlib_module_names, "workflow", "__main__"}
private = "_sysconfigdata_"  # the platform's part of sysconfig has its name behind it
print(json.dumps({
    "seconds": seconds,
    "outsiders": [name for name in sys.modules if name.split(".")[0] not in known and not name.startswith(private)],
    "threads": [thread.name for thread in threading.enumerate()],
    "touched": watching,
    "handlers": len(logging.getLogger().handlers) + len(logging.getLogger("workflow").handlers),
    "level": logging.getLogger("workflow").level,
}))
"""


def probe() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run_python("-c", PROBE, str(ROOT)))
    return result


def test_importing_does_nothing_but_import() -> None:
    found = probe()
    assert found["outsiders"] == []
    assert found["threads"] == ["MainThread"]
    assert found["touched"] == []
    assert (found["handlers"], found["level"]) == (0, 0)


def test_importing_is_quick(tmp_path: Path) -> None:
    cache = f"pycache_prefix={tmp_path}"  # compiled files, as an installation has them, but not into the checkout
    command = "import sys; sys.path.insert(0, sys.argv[1]); import workflow"
    subprocess.run([sys.executable, "-I", "-S", "-X", cache, "-c", command, str(ROOT)], check=True, timeout=60)
    times: list[float] = []
    for _ in range(15):  # the best of many is what the import costs; the others are what the machine was busy with
        times.append(json.loads(run_python("-X", cache, "-c", PROBE, str(ROOT)))["seconds"])
        if times[-1] < MAX_IMPORT_SECONDS:
            return
    pytest.fail(f"importing workflow takes {min(times) * 1000:.0f} ms, more than {MAX_IMPORT_SECONDS * 1000:.0f} ms")


# --- vendoring ------------------------------------------------------------------------------------------------------


def vendored(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """A copy of the package as `acme._vendor.workflow`. Returns the folder to put on the path."""
    vendor = folder / "acme" / "_vendor"
    shutil.copytree(PACKAGE, vendor / "workflow", ignore=shutil.ignore_patterns("__pycache__", *without))
    (folder / "acme" / "__init__.py").touch()
    (vendor / "__init__.py").touch()
    return folder


def zipped(folder: Path, archive: Path) -> Path:
    """The folder's contents as a zip file, which can be put on the path as well."""
    return Path(shutil.make_archive(str(archive), "zip", folder))


@pytest.fixture(params=["folder", "zip"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A vendored copy, as a folder or in a zip file."""
    folder = vendored(tmp_path / "lib")
    return folder if request.param == "folder" else zipped(folder, tmp_path / "lib")


# Imports every module of the copy except the command, then checks that none came from elsewhere.
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
package = importlib.import_module("acme._vendor.workflow")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
print(*(name for name in sys.modules if name.split(".")[0] == "workflow"))
"""


def test_a_vendored_copy_imports_whole(place: Path) -> None:
    assert run_python("-c", IMPORT_ALL, str(place)).split() == []


def test_a_copy_without_its_optional_parts_imports(tmp_path: Path) -> None:
    folder = vendored(tmp_path, without=(*OPTIONAL, *(f"{name}.py" for name in OPTIONAL)))
    assert (
        run_python("-c", "import sys; sys.path.insert(0, sys.argv[1]); import acme._vendor.workflow", str(folder)) == ""
    )


def test_the_demo_runs_from_a_vendored_copy(place: Path) -> None:
    start = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
        "runpy.run_module('acme._vendor.workflow', run_name='__main__', alter_sys=True)"
    )
    assert run_python("-c", start, str(place), "demo") != ""

"""`MODULE:WORKFLOW`: from what was typed to a built workflow.

MODULE is a module's name as in an `import`, found from the current folder and PYTHONPATH. WORKFLOW is a name in it: a
`Builder`, or a callable that takes the adapters and returns a built `Workflow`, for one that has to be built with
options of its own.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from pathlib import PurePath
from types import ModuleType
from typing import Any, TypeGuard

from ..builder import Builder
from ..engine import Workflow
from ..errors import InvalidInput, WorkflowError
from ..protocols import Adapters

Make = Callable[[Adapters], Workflow[Any, Any]]


def find(target: str) -> Make:
    """What builds the workflow that the target names. Raises `InvalidInput` if there is no such thing."""
    module_name, separator, name = target.partition(":")
    if not separator or not module_name or not name:
        raise InvalidInput(f"{target!r} names no workflow: write MODULE:WORKFLOW, as in shop:orders")
    found: Any = _import(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InvalidInput(f"{module_name} has no {name}{_candidates(found)}")
        found = getattr(found, part)
    if _is_builder(found):
        return found.build
    if not callable(found):
        raise InvalidInput(f"{target} is a {type(found).__name__}, not a Builder or a callable that takes adapters")

    def make(adapters: Adapters) -> Workflow[Any, Any]:
        made: object = found(adapters)
        if not _is_workflow(made):
            raise InvalidInput(f"{target} returned a {type(made).__name__}, not a built Workflow")
        return made

    return make


def _is_builder(value: object) -> TypeGuard[Builder[Any, Any]]:
    return isinstance(value, Builder)


def _is_workflow(value: object) -> TypeGuard[Workflow[Any, Any]]:
    return isinstance(value, Workflow)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except WorkflowError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise InvalidInput(f"importing {name} failed: {_place(error)}: {error}") from error
        raise InvalidInput(
            f"there is no module {error.name}: go to the folder that has it, or add that to PYTHONPATH"
        ) from error
    except Exception as error:
        raise InvalidInput(f"importing {name} failed: {_place(error)}: {type(error).__name__}: {error}") from error


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{PurePath(last.filename).name}:{last.lineno}"


def _candidates(found: object) -> str:
    builders = [name for name, value in vars(found).items() if isinstance(value, Builder)]
    return f"; it has {', '.join(builders)}" if builders else ""

"""Adapters by name: from environment variables, as a deployment sets them, or from one URL.

    WORKFLOW_ADAPTERS  memory, sqlite, postgres, postgres+kafka, …; without it, the two below decide
    DATABASE_URL       sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user:password@host/database
    KAFKA_BROKERS      host:port,host:port; events go through Kafka, records stay in the database

A name that is not of the core is looked up in the entry-point group `workflow.adapters`, where other distributions
offer theirs. An entry is a callable

    make(environ: Mapping[str, str], base: Adapters | None, **options) -> Adapters

It takes what it needs from `environ`. For the first name `base` is None. For a further one, after a `+`, it is the set
so far, of which the callable replaces parts: `postgres+kafka` calls `kafka(environ, postgres(environ, None))`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from .adapters.memory import memory
from .adapters.sqlite import sqlite
from .errors import InvalidInput, MissingExtra
from .protocols import Adapters

GROUP = "workflow.adapters"
EXTRAS = ("kafka", "postgres")
"""The names that `workflow-stdlib-contrib` has an extra for."""
ALIASES = {"postgresql": "postgres"}

Make = Callable[..., Adapters]

HINT = "set DATABASE_URL, as in sqlite:///orders.db or postgresql://user@host/database, or WORKFLOW_ADAPTERS=memory"


def adapters_from_env(environ: Mapping[str, str] | None = None, *, create: bool = True, **options: Any) -> Adapters:
    """The set of adapters that the environment names; `options` go to whoever makes its first part.

    With `create=False` a store that is a file must exist. Raises `InvalidInput` for what cannot be understood, and
    `MissingExtra`, with the command to type, if a package is not installed.
    """
    environ = os.environ if environ is None else environ
    first, *others = names_of(environ)
    if not create:
        _check_exists(first, environ)
    if first in CORE and not others:
        return CORE[first](environ, None, **options)
    from importlib.metadata import entry_points  # half of the time of `import workflow`, were it at the top

    found: dict[str, Make] = dict(CORE)
    for entry in entry_points(group=GROUP):
        if entry.name in (first, *others) and entry.name not in CORE:
            found[entry.name] = _load(entry)
    made = _maker(found, first)(environ, None, **options)
    try:
        for name in others:
            made = _maker(found, name)(environ, made)
    except BaseException:
        made.close()
        raise
    return made


def adapters_from_url(url: str, *, create: bool = True, **options: Any) -> Adapters:
    """The adapters of one URL, as `DATABASE_URL` has it; `memory://` keeps everything in this process."""
    return adapters_from_env({"DATABASE_URL": url}, create=create, **options)


def names_of(environ: Mapping[str, str]) -> list[str]:
    """The names that the environment asks for, as in `["postgres", "kafka"]`."""
    given = environ.get("WORKFLOW_ADAPTERS", "").strip()
    if given:
        names = [name.strip().lower() for name in given.split("+")]
        if not all(names):
            raise InvalidInput(f"WORKFLOW_ADAPTERS={given}: names are joined by +, as in postgres+kafka")
        return [ALIASES.get(name, name) for name in names]
    url, brokers = environ.get("DATABASE_URL", ""), environ.get("KAFKA_BROKERS", "")
    if not url:
        told = "KAFKA_BROKERS is set, but records need a database" if brokers else "no store is named"
        raise InvalidInput(f"{told}: {HINT}")
    return [scheme_of(url), "kafka"] if brokers else [scheme_of(url)]


def scheme_of(url: str) -> str:
    """The name that the URL begins with, `postgres` for `postgresql+driver://…`."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        # The text itself is not repeated: it may hold a password.
        raise InvalidInput("the store is no URL: write sqlite:///orders.db or postgresql://user@host/database")
    name = scheme.split("+")[0].lower()
    return ALIASES.get(name, name)


def file_of(url: str) -> str | None:
    """The file of a `sqlite:` URL; None for another URL, or none."""
    if not url or scheme_of(url) != "sqlite":
        return None
    rest = url.partition("://")[2]
    if not rest.startswith("/"):
        raise InvalidInput(f"{url}: a file has three slashes before its name, four if its path is absolute")
    if rest in ("/", "/:memory:"):
        raise InvalidInput(f"{url} names no file; WORKFLOW_ADAPTERS=memory keeps everything in memory")
    return rest[1:]


def _check_exists(name: str, environ: Mapping[str, str]) -> None:
    path = file_of(environ.get("DATABASE_URL", "")) if name == "sqlite" else None
    if path is not None and not os.path.exists(path):
        raise InvalidInput(f"there is no store {path}: is its path right? It counts from the current folder")


def _load(entry: Any) -> Make:
    """The callable of an entry point. What it needs and does not find is an extra that was not installed."""
    try:
        make: Make = entry.load()
    except ModuleNotFoundError as error:
        raise _missing(entry.name, str(error)) from error
    return make


def _maker(found: Mapping[str, Make], name: str) -> Make:
    if name in found:
        return found[name]
    if name in EXTRAS:
        raise _missing(name, "no package offers them")
    known = ", ".join(sorted({*found, *EXTRAS}))
    raise InvalidInput(
        f"there are no adapters {name!r}: known are {known}; set WORKFLOW_ADAPTERS or DATABASE_URL to one"
    )


def _missing(name: str, why: str) -> MissingExtra:
    told = f"the adapters {name!r} are not installed ({why})"
    return MissingExtra(f'{told}: pip install "workflow-stdlib-contrib[{name}]"' if name in EXTRAS else told)


# --- the core's own ------------------------------------------------------------------------------------------------


def _memory(environ: Mapping[str, str], base: Adapters | None, **options: Any) -> Adapters:
    _check_first("memory", base)
    return memory(**options)


def _sqlite(environ: Mapping[str, str], base: Adapters | None, **options: Any) -> Adapters:
    _check_first("sqlite", base)
    path = file_of(environ.get("DATABASE_URL", ""))
    if path is None:
        raise InvalidInput("sqlite needs a file: set DATABASE_URL, as in sqlite:///orders.db")
    return sqlite(path, **options)


def _check_first(name: str, base: Adapters | None) -> None:
    if base is not None:
        raise InvalidInput(f"{name} is a whole set of adapters: it can only be the first name in WORKFLOW_ADAPTERS")


CORE: Mapping[str, Make] = {"memory": _memory, "sqlite": _sqlite}

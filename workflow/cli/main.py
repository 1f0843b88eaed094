"""What was typed becomes the call of a command; every error becomes one line on stderr and an exit status.

The exit statuses:

    0    done
    1    it failed, or what it was to bring about did not come
    2    what was typed cannot be used
    130  stopped by Ctrl-C (143: by SIGTERM), as shells have it
    141  whoever read the output went away
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import InvalidInput, WorkflowError
from .arguments import parser
from .terminal import Terminal, clean

FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (by default the process's) asks for. Returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.function(arguments, Terminal(as_json=arguments.json))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return READER_GONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            raise
        print(f"{arguments.prog}: {_told(error)}", file=sys.stderr)
        return UNUSABLE if isinstance(error, InvalidInput) else FAILED
    return status


def _told(error: Exception) -> str:
    """The error on one line."""
    text = "; ".join(line.strip(" -") for line in str(error).splitlines()).replace(":;", ":")
    if isinstance(error, (WorkflowError, OSError)):
        return clean(text)
    return clean(f"{type(error).__name__}: {text}; --debug shows where")


def _drop_output() -> None:
    """Let nothing more be written to a pipe that nobody reads, not even when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

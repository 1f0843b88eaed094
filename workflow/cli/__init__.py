"""The command line: `python -m workflow`.

Its modules, each of which imports only those before it:

  terminal   writing for people and for programs
  story      a run's history in words
  store      opening a store, and finding runs in it
  look       the commands workflows, runs, show, items, diagram
  steer      the commands pause, resume, cancel, delete-data, retry
  target     MODULE:WORKFLOW
  stop       Ctrl-C once and twice
  feed       run --input
  serve      the command run
  demo       the demo's order process: a first example to read
  stage      the demo's twelve orders, the courier and the people around them
  play       the command demo: its live picture and its summary
  arguments  the commands and their options
  main       what was typed becomes a call; every error becomes one line and an exit status
"""

from .main import main

__all__ = ["main"]

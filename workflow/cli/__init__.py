"""The command line: `python -m workflow`.

The commands and what they are made of, in the order in which they are read:

  main       what was typed becomes a call; every error becomes one line and an exit status
  arguments  the commands and their options
  terminal   writing for people and for programs
  story      a run's history in words
  store      opening a store, and finding runs in it
  look       workflows, runs, show, items, diagram
  steer      pause, resume, cancel, delete-data, retry
  target     MODULE:WORKFLOW
  stop       Ctrl-C once and twice
  serve      run
  feed       run --input
  demo       the demo's order process: a first example to read
  stage      the demo's twelve orders, and the people and the courier around them
  play       the demo itself: its live picture and its summary
"""

from .main import main

__all__ = ["main"]

"""What tests of workflows need, for the users' own as for ours.

runs     `run_for`: a `Run` to call one function alone
clock    `VirtualClock`: time that stands still until the test sets it forward
waits    `eventually`, `wait_for_status`, `wait_for_state`: deadlines, and failures that tell the run's story
faults   `Faulty`: adapters whose chosen calls fail, lag, or hang until released
metrics  `recording_metrics`: figures that a test can look at

  clock = VirtualClock()
  wf = builder.build(memory(clock=clock), clock=clock)
  with wf:
      run_id = wf.trigger("order-1")
      clock.advance(timedelta(hours=48))
      wait_for_status(wf, run_id, Status.EXPIRED)
"""

from .clock import START, VirtualClock
from .faults import Faulty, Hold
from .metrics import RecordingMetrics, recording_metrics
from .runs import run_for
from .waits import eventually, wait_for_state, wait_for_status

__all__ = [
    "START",
    "Faulty",
    "Hold",
    "RecordingMetrics",
    "VirtualClock",
    "eventually",
    "recording_metrics",
    "run_for",
    "wait_for_state",
    "wait_for_status",
]

import sys; sys.path.insert(0,'.')
import pytest
from tests.processes import test_poison, support
orig = support.wait_for
def wf2(cond, what="x", seconds=60.0):
    try:
        return orig(cond, what, min(seconds, 25.0))
    except AssertionError:
        if what == "the end of the others":
            import gc
            f = sys._getframe(1)
            wf, ids = f.f_locals["wf"], f.f_locals["run_ids"]
            for r in ids:
                v = wf.get(r)
                if not v.run_state.finished:
                    print(r, v.status, v.run_state, v.record.suspect, v.available_at, v.attempt)
                    for row in wf.history(r): print("   ", row.version, row.status, row.run_state.name, row.attempt, row.at.time(), row.reason, row.instance)
            print("pois"); 
            for row in wf.history(f.f_locals["poisoned"]): print("   ", row.version, row.status, row.run_state.name, row.attempt, row.at.time(), row.reason)
        raise
test_poison.wait_for = wf2
from tests.processes.conftest import site
def test_x(site): test_poison.test_a_run_that_kills_its_process_is_paused_at_last_and_no_other_is(site)

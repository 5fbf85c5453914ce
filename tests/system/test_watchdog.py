"""Which threads are reported as hanging (fault: a stopped clock, a stopped process)."""

import threading
import time

import pytest

from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.watchdog import Stalled, Watchdog, Watched


class Worker:
    """Makes a step at each poll, unless it hangs."""

    def __init__(self):
        self.count = 0
        self.hangs = False

    def steps(self):
        self.count += not self.hangs
        return self.count


@pytest.fixture
def make(tmp_path):
    """Starts a watchdog; returns it and the list of what it found."""
    started = []

    def make(*watched):
        found = []

        def on_stall(error):
            found.append(error)
            watchdog.stop()  # as a run does that ends in order

        watchdog = Watchdog(
            lambda: watched, RunFolder(tmp_path).write_stacks, on_stall, lambda _: None
        )
        watchdog.start()
        started.append(watchdog)
        return watchdog, found

    yield make
    for watchdog in started:
        watchdog.stop()
        watchdog.join()


def test_the_thread_that_hangs_is_named_with_its_stack(make, tmp_path, capsys):
    release = threading.Event()

    def stuck_in_the_emulator():
        release.wait(60)

    thread = threading.Thread(target=stuck_in_the_emulator, name="actor-1")
    thread.start()
    good, bad, idle = Worker(), Worker(), Worker()
    bad.hangs = idle.hangs = True
    watchdog, found = make(
        Watched("actor-0", good.steps, lambda: False, 0.3),
        Watched("actor-1", bad.steps, lambda: False, 0.3),
        Watched("actor-2", idle.steps, lambda: True, 0.3),
    )
    watchdog.join(30)
    release.set()
    (error,) = found
    assert isinstance(error, Stalled)
    assert "no step for 0.3 s (--stall_timeout) from actor-1;" in str(error)
    stacks = (tmp_path / "stacks.txt").read_text("utf-8")
    assert "thread actor-1:" in stacks and "stuck_in_the_emulator" in stacks
    assert stacks.partition("\n\n")[2] in capsys.readouterr().err


def test_a_clock_jump_or_a_stopped_process_is_not_a_hang(make, monkeypatch):
    """Time is what the watchdog itself waited for, not what a clock says."""
    slow = Worker()
    slow.hangs = True
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 + 1e5 * next(jumps))
    monkeypatch.setattr(time, "monotonic", lambda: 1e9 + 1e5 * next(jumps))
    waits = []
    watchdog = Watchdog(lambda: [], None, None, None)

    def wait(seconds):
        """Comes back after an hour, as it does in a process that was stopped meanwhile."""
        waits.append(seconds)
        if len(waits) % 8 == 0:
            slow.count += 1
        return len(waits) > 200

    monkeypatch.setattr(watchdog, "_stopped", type("Event", (), {"wait": staticmethod(wait)})())
    monkeypatch.setattr(
        watchdog, "_watched", lambda: [Watched("actor-0", slow.steps, lambda: False, 1.0)]
    )
    watchdog.run()  # would fail on calling None
    assert sum(waits) > 19

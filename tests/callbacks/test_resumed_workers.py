"""Workers that are killed, and go on together as if nothing had happened."""

import json
import signal

import pytest
import workers_harness

SCRIPT = str(workers_harness.ROOT / "tests" / "workers" / "interrupted.py")
STEPS = 14
# Each process has generators of its own, and goes on with the chief's; so do
# the sums behind the means of an epoch. No step of a training uses them.
OF_A_PROCESS = ("random/", "metrics/")


def steps_of(folder, worker):
    """Lines of the log; one that a kill cut off does not count."""
    lines = (folder / f"steps-{worker}.txt").read_text().split("\n")
    return [line for line in lines if line.count(" ") == 4]


def assert_as_if_nothing_had_happened(resumed, whole, steps=STEPS):
    for worker in (0, 1):
        expected = steps_of(whole, worker)
        assert len(expected) == steps
        # Steps since the last checkpoint were taken twice, both times alike.
        assert set(steps_of(resumed, worker)) == set(expected)
        want, got = (
            json.loads((folder / f"state-{worker}.json").read_text())
            for folder in (whole, resumed)
        )
        assert len(want) > 70 and set(want) == set(got)
        different = [name for name in want if want[name] != got[name]]
        if worker:
            different = [n for n in different if not n.startswith(OF_A_PROCESS)]
        assert not different


@pytest.mark.soak
def test_both_workers_killed(tmp_path, on_tensorflow):
    """As `make soak` does it at random moments, and with one of them."""
    resumed, whole = tmp_path / "resumed", tmp_path / "whole"
    words = [SCRIPT, str(resumed), f"--steps={STEPS}"]
    first = [*words, f"--whole={whole}", "--pause-at=5"]
    with workers_harness.cluster(first, tmp_path) as pair:
        # The other one waits for it in the sum of step 6.
        pair[0].wait_for("pausing", timeout=240)
        for worker in pair:
            worker.kill()
        codes = [worker.wait(10) for worker in pair]
        assert codes == [-signal.SIGKILL] * 2
    assert len(steps_of(resumed, 0)) == 5
    with workers_harness.cluster(words, tmp_path) as pair:
        for worker in pair:
            assert worker.wait(240) == 0, worker.output[-6000:]
        assert "after 3 of its steps, 3 in all" in pair[0].output
    assert_as_if_nothing_had_happened(resumed, whole)

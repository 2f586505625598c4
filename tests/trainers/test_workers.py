"""Several processes train one model, over the loopback interface."""

import numpy as np
import pytest
import workers_harness

from keras_vq.trainers import workers

SCRIPTS = workers_harness.ROOT / "tests" / "workers"


def test_broadcast(tmp_path):
    """Every bit of the chief's values reaches the other worker."""
    chief, other = workers_harness.run(SCRIPTS / "broadcast.py", tmp_path)
    assert (chief["chief"], other["chief"]) == (True, False)
    assert chief["received"] == chief["own"]
    assert other["received"] == chief["own"]
    assert other["own"] != chief["own"]


@pytest.mark.parametrize("replicas", ["one", "two_replicas"])
def test_one_process_is_the_chief(replicas, request):
    strategy = None
    if replicas != "one":
        strategy = request.getfixturevalue(replicas)
    assert workers.is_chief(strategy)
    assert not workers.is_multi_worker(strategy)
    values = [np.arange(3), np.float32(2.5)]
    for value, got in zip(values, workers.broadcast(values, strategy)):
        np.testing.assert_array_equal(got, value)

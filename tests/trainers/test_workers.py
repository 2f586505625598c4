"""Several processes train one model, over the loopback interface."""

import socket

import numpy as np
import pytest
import workers_compare
import workers_harness

from keras_vq.trainers import WorkerLostError, lost_workers, workers
from keras_vq.training.strategies import check_tf_config

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
    for value, got in zip(
        values, workers.broadcast(values, strategy), strict=True
    ):
        np.testing.assert_array_equal(got, value)


def test_training(tmp_path):
    """Everything on, of which the long form takes more steps."""
    one, *many = workers_compare.train_both(tmp_path, steps=5)
    for worker in many:
        workers_compare.assert_equal(worker, one)
    grids = ["one/grids", "worker-0/grids"]
    for folder in grids:
        assert len(list((tmp_path / folder).glob("*.png"))) == 1
    # Only the first worker writes.
    assert not (tmp_path / "worker-1" / "grids").exists()


def test_launcher(tmp_path):
    output = tmp_path / "run"
    words = ["--strategy", "multiworker", "--output-dir", str(output)]
    command = [str(SCRIPTS / "launcher.py"), *words]
    workers_harness.run(command, tmp_path, timeout=400)
    files = {p.name for p in output.iterdir()}
    assert files >= {"preset", "results.json", "README.md", "log.csv"}
    # One line an epoch, whatever number of workers.
    assert len((output / "log.csv").read_text().splitlines()) == 3
    logs = [(tmp_path / f"worker-{i}.log").read_text() for i in (0, 1)]
    written = f"written to {output}"
    assert written in logs[0] and written not in logs[1]


def test_killed_worker(tmp_path):
    with workers_harness.cluster(SCRIPTS / "killed.py", tmp_path) as pair:
        survivor, victim = pair
        survivor.wait_for("training")
        address = victim.address
        victim.kill()
        assert survivor.wait(10) == 1
        assert "WorkerLostError: Lost worker 1 at " + address in survivor.output
        assert "resume from the last checkpoint" in survivor.output


def test_who_refuses_connections():
    """Slow networks are not taken for dead processes."""
    (nobody,) = workers_harness.addresses(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        peers = {
            "worker 1": nobody,
            "worker 2": here,
            "worker 3": "x.invalid:1",
        }
        assert lost_workers._refusing(peers) == {"worker 1": nobody}


def test_names_in_tensorflows_errors():
    peers = {"chief 0": "a:1", "worker 0": "b:1", "worker 1": "c:1"}
    message = "(/job:worker/replica:0/task:1) and /job:chief/task:0 are gone"
    named = lost_workers._named_in(message, peers)
    assert named == {"chief 0": "a:1", "worker 1": "c:1"}
    error = lost_workers._error(named, peers)
    assert isinstance(error, WorkerLostError)
    assert error.addresses == ["a:1", "c:1"]


GOOD = """{"cluster": {"worker": ["a:1", "b:2"]},
    "task": {"type": "worker", "index": 1}}"""


def test_good_configurations():
    check_tf_config(GOOD)
    check_tf_config(
        """{"cluster": {"chief": ["[::1]:80"], "worker": ["b:2"]},
        "task": {"type": "chief", "index": 0}, "environment": "cloud"}"""
    )


@pytest.mark.parametrize(
    "text, complaint",
    [
        (None, "it is not set"),
        ("", "it is not set"),
        ("{'cluster'", "it is no JSON"),
        ("[1]", "it is no JSON object"),
        ("{}", "must be objects"),
        (GOOD.replace(', "b:2"', ""), '"task" must name'),
        (GOOD.replace('"index": 1', '"index": "1"'), '"task" must name'),
        (GOOD.replace('"index": 1', '"index": -1'), '"task" must name'),
        (GOOD.replace('"type": "worker"', '"type": "ps"'), '"task" must name'),
        (GOOD.replace('{"worker"', '{"ps"'), "take part, not"),
        (GOOD.replace("b:2", "b"), "this is none: 'b'"),
        (GOOD.replace("b:2", "b:99999"), "this is none: 'b:99999'"),
        (GOOD.replace("b:2", "a:1"), "the same address"),
    ],
)
def test_bad_configurations(text, complaint):
    with pytest.raises(ValueError, match="Expected, with the same list") as e:
        check_tf_config(text)
    assert complaint in str(e.value)
    assert f"Received: TF_CONFIG={text!r}" in str(e.value)

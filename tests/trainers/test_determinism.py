"""Same seed, same machine: the same weights, bit for bit."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest
import seeded_run
import tensorflow as tf

_ROOT = pathlib.Path(seeded_run.__file__).parents[1]


def hashes(seed, *options):
    """What a process of its own says of its training."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    # Another one in each process, as users have it.
    environment.pop("PYTHONHASHSEED", None)
    result = subprocess.run(
        [sys.executable, seeded_run.__file__, str(seed), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = dict(line.split() for line in result.stdout.splitlines())
    assert set(lines) == {"vqvae", "dropout"}
    return lines


def test_two_processes():
    first = hashes(0)
    assert hashes(0, "--deterministic") == first


@pytest.mark.parametrize("name", ["vqvae", "dropout"])
def test_no_operation_without_a_deterministic_kernel(name):
    """Scattered updates have an order of their own on a GPU."""
    keras.utils.set_random_seed(0)
    model = getattr(seeded_run, name)()
    model.compile("adam", weight_ema=0.9, clipnorm=1.0)
    images = tf.TensorSpec((8, 16, 16, 3), tf.float32)
    step = tf.function(model.train_step).get_concrete_function((images,))
    graph = step.graph.as_graph_def()
    nodes = [
        *graph.node,
        *(n for f in graph.library.function for n in f.node_def),
    ]
    operations = {node.op for node in nodes}
    assert "Conv2D" in operations
    scattered = {op for op in operations if "Scatter" in op}
    assert not scattered
    random = {op for op in operations if op.startswith("Random")}
    assert not random

"""The callbacks under tf.distribute."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_vq
from keras_vq.callbacks import CodebookHealth, ReconstructionGrid

ROOT = Path(__file__).parents[2]

WORKER = """
import sys
import keras
import numpy as np
import tensorflow as tf
import keras_vq

images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3))
keras.utils.set_random_seed(0)
with tf.distribute.MultiWorkerMirroredStrategy().scope():
    model = keras_vq.models.VQVAE(
        hidden_units=8, residual_units=4, codebook_size=8, codebook_dim=4
    )
    model.compile(weight_ema=0.5)
grid = keras_vq.callbacks.ReconstructionGrid(
    images, sys.argv[1], tensorboard=False
)
grid.set_params({"epochs": 1})
grid.set_model(model)
grid.on_epoch_end(0)
grid.on_train_end()
"""


def start(code, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes):
    try:
        outputs = [p.communicate(timeout=600)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]


def test_two_replicas_show_one_sheet_and_revive_alike(two_replicas, tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3))
    images = images.astype("float32")
    with two_replicas.scope():
        quantizer = keras_vq.layers.EMAVectorQuantizer(
            16, 4, decay=0.5, revival_threshold=0, codebook_initializer="zeros"
        )
        model = keras_vq.models.VQVAE(
            hidden_units=8,
            residual_units=4,
            codebook_dim=4,
            quantizer=quantizer,
        )
        far = np.full((16, 4), 1e3, "float32")
        far[0] = 0
        quantizer._restart(far)
        model.compile(weight_ema=0.5)
    health = CodebookHealth(patience=1, revive=images, revival_threshold=0.5)
    grid = ReconstructionGrid(images, tmp_path, tensorboard=False)
    with pytest.warns(UserWarning, match="collapsing"):
        model.fit(
            images, epochs=2, batch_size=4, verbose=0, callbacks=[health, grid]
        )
    assert health.revived_codes == 15
    assert sorted(os.listdir(tmp_path)) == ["epoch_0001.png", "epoch_0002.png"]
    for variable in (quantizer.codebook, quantizer.counts, quantizer.sums):
        first, second = (v.numpy() for v in variable.value.values)
        np.testing.assert_array_equal(first, second)
        assert np.abs(first).max() < 100


def test_of_two_workers_the_chief_alone_writes(on_tensorflow, tmp_path):
    ports = []
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
        ports.append(s.getsockname()[1])
    for s in sockets:
        s.close()
    workers = [f"127.0.0.1:{port}" for port in ports]
    finish(
        [
            start(
                WORKER,
                str(tmp_path / str(index)),
                TF_CONFIG=json.dumps(
                    {
                        "cluster": {"worker": workers},
                        "task": {"type": "worker", "index": index},
                    }
                ),
            )
            for index in range(2)
        ]
    )
    assert os.listdir(tmp_path / "0") == ["epoch_0001.png"]
    assert not (tmp_path / "1").exists()

"""Process that takes VQGAN's steps in one framework when it is told to.

`benchmarks.vqgan_step` starts it. As `benchmarks.step_worker` it reads one JSON
object a line and answers on its output; `peak_mb` is the most memory that the
process has held so far.

    {"name": "step", "steps": 1} -> {"seconds": 11.9, "values": {...},
                                     "peak_mb": 7123.4}
"""

import itertools
import json
import os
import pathlib
import resource
import sys
import time

import numpy as np

from benchmarks import timing, vqgan_material

# Images, side, channels of the convolution that stands for the machine: one
# of those that the networks are made of, and the fastest among them.
CONVOLUTION = (2, 128, 256)


def _keras_tasks(request):
    import keras
    import tensorflow as tf

    from keras_vq.trainers.phases import enter_phase

    tf.config.threading.set_intra_op_parallelism_threads(2)
    folder = pathlib.Path(request["folder"])
    images = np.load(folder / "images.npz")["images"]
    config = {**request["config"], **request.get("options", {})}
    model = vqgan_material.make_model(config, request["lpips_files"])
    with np.load(folder / "keras.npz") as file:
        model.set_weights([file[name] for name in file.files])
    model.compile(
        *[
            keras.optimizers.Adam(
                vqgan_material.LEARNING_RATE, beta_1=0.5, beta_2=0.9
            )
            for _ in range(2)
        ]
    )
    # As `fit` does.
    model._open_files()
    enter_phase(model, 0)
    model.make_train_function()
    dataset = tf.data.Dataset.from_tensor_slices(images).repeat()
    iterator = iter(dataset)

    def step():
        model.reset_metrics()
        logs = model.train_function(iterator)
        # The generator's loss without the adversarial part, as torch has it.
        return {name: logs[name] for name in request["terms"]}

    batches = list(map(tf.constant, images))
    return {
        "step": step,
        "encode": _encode(model.encode, batches),
        "convolution": _convolution(tf),
    }


def _convolution(tf):
    batch, side, channels = CONVOLUTION
    images = tf.random.normal((batch, side, side, channels))
    kernel = tf.random.normal((3, 3, channels, channels))
    product = tf.function(lambda: tf.nn.conv2d(images, kernel, 1, "SAME"))
    return lambda: {"value": product()[0, 0, 0, 0]}


def _torch_tasks(request):
    import torch

    torch.set_num_threads(2)
    from benchmarks.torch_running import Running
    from benchmarks.torch_vqgan import TrainingStep

    folder = pathlib.Path(request["folder"])
    made = TrainingStep(
        torch.load(folder / "torch.pt"),
        Running(**request.get("options", {})),
    )
    images = np.load(folder / "images.npz")["images"]
    batches = [made.batch(images) for images in images]
    iterator = itertools.cycle(batches)
    return {
        "step": lambda: made(next(iterator)),
        "encode": _encode(made.encode, batches),
    }


def _encode(function, batches):
    iterator = itertools.cycle(batches)
    return lambda: {"codes": function(next(iterator))}


_MAKERS = {"keras": _keras_tasks, "torch": _torch_tasks}


def _numbers(values: dict) -> dict:
    """Waits for the values."""
    return {name: np.asarray(v).tolist() for name, v in values.items()}


def main():
    """Makes the tasks of `argv[1]` and serves commands until the end."""
    # Libraries print; the answers have the real output for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    timing.use_cores(2)
    tasks = _MAKERS[sys.argv[1]](json.loads(sys.argv[2]))
    print(json.dumps({"ready": list(tasks)}), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        task, values = tasks[command["name"]], None
        start = time.perf_counter()
        for _ in range(command["steps"]):
            values = _numbers(task())
        seconds = time.perf_counter() - start
        answer = {
            "seconds": seconds,
            "values": values,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()

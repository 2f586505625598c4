"""Process that takes training steps of one framework when it is told to.

`benchmarks.training_step` starts one for each framework,
`benchmarks.step_overhead` one for each number of replicas. It reads one JSON
object a line from its input and answers on its output; between the commands it
waits in `read` and uses no processor.

    {"name": "eager", "steps": 5} -> {"seconds": 0.21, "losses": [...]}
"""

import json
import os
import sys
import time

import numpy as np

from benchmarks import timing


def _keras_model(config):
    from keras_vq.models import VQVAE

    return VQVAE(**config)


def _keras_steps(config, path, variants):
    """Training functions as `fit` makes and calls them.

    A variant is `{"compile": dict, "replicas": int, "bare": bool}`, all of
    which may be left out.
    """
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    replicas = max(v.get("replicas", 1) for v in variants.values())
    if replicas > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * replicas,
        )
    keras.utils.set_random_seed(0)
    images = np.load(path)["images"]
    model = _keras_model(config)
    model.adapt(images[0])
    arrays = [
        v.numpy()
        for v in [*model.encoder.trainable_variables]
        + [*model.decoder.trainable_variables]
    ]
    start = model.get_weights()
    np.savez(
        path,
        images=images,
        codebook=model.quantizer.codebook.numpy(),
        **{f"weight_{i:03}": array for i, array in enumerate(arrays)},
    )
    batch = images.shape[1]
    dataset = tf.data.Dataset.from_tensor_slices(
        images.reshape(-1, *images.shape[2:])
    )
    dataset = dataset.batch(batch).repeat().prefetch(2)
    return {
        name: _keras_step(config, start, dataset, **arguments)
        for name, arguments in variants.items()
    }


def _keras_step(config, start, dataset, replicas=1, bare=False, compile=None):
    import keras
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        devices = [f"CPU:{i}" for i in range(replicas)]
        strategy = tf.distribute.MirroredStrategy(devices)
        dataset = strategy.experimental_distribute_dataset(dataset)
    with strategy.scope():
        model = _keras_model(config)
        model.set_weights(start)
        if bare:
            from benchmarks.bare_step import BareModel

            model = BareModel(model)
        model.compile(keras.optimizers.Adam(1e-3), **(compile or {}))
    model.make_train_function()
    model.reset_metrics()
    iterator = iter(dataset)

    def step():
        return model.train_function(iterator)["loss"]

    return step


def _torch_steps(config, path, variants):
    import torch

    torch.set_num_threads(2)
    from benchmarks.torch_running import Running
    from benchmarks.torch_vqvae import Autoencoder, TrainingStep, load

    file = np.load(path)
    arrays = [file[k] for k in sorted(file.files) if k.startswith("weight")]
    steps = {}
    for name, arguments in variants.items():
        model = Autoencoder(config)
        load(model, arrays)
        made = TrainingStep(model, [file["codebook"]], Running(**arguments))
        steps[name] = _torch_step(made, [made.batch(b) for b in file["images"]])
    return steps


def _torch_step(made, batches):
    def endless():
        while True:
            yield from batches

    iterator = endless()

    def step():
        # The running mean over the batches, as Keras logs it.
        step.count += 1
        return made(next(iterator))["means"][0] / step.count

    step.count = 0
    return step


_MAKERS = {"keras": _keras_steps, "torch": _torch_steps}


def main():
    """Builds the steps of `argv[1]` and serves commands until the end."""
    # Libraries print; the answers have the real output for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    timing.use_cores(2)
    request = json.loads(sys.argv[2])
    steps = _MAKERS[sys.argv[1]](
        request["config"], request["path"], request["variants"]
    )
    print(json.dumps({"ready": list(steps)}), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        step, losses = steps[command["name"]], []
        start = time.perf_counter()
        for _ in range(command["steps"]):
            losses.append(step())
        last = float(losses[-1])  # waits for all of them
        seconds = time.perf_counter() - start
        losses = [float(loss) for loss in losses[:-1]] + [last]
        answer = {"seconds": seconds, "losses": losses}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()

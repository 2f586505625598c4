"""One worker of several, which meets bad images.

Arguments: a folder with some, and one with too many for one worker.
"""

import contextlib
import os
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from networks import decoder, encoder
from workers_harness import report

from keras_vq import data
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder

# Divisible neither by two replicas nor by two workers.
BATCH = 5


def train(folder, strategy=None, steps=8):
    """Trains and evaluates with what is good in a folder."""
    keras.utils.set_random_seed(1)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = VQAutoencoder(encoder(), EMAVectorQuantizer(4, 4), decoder())
        model.compile(keras.optimizers.SGD(0.01))
    options = {"image_size": 16, "batch_size": BATCH, "on_error": "skip"}
    options |= {"max_bad_fraction": 0.3}
    endless = data.from_folder(folder, repeat=True, shuffle=True, **options)
    once = data.from_folder(folder, **options)
    history = model.fit(endless, steps_per_epoch=steps, verbose=0).history
    found = {
        "logs": {name: values[-1] for name, values in history.items()},
        "evaluate": model.evaluate(once, verbose=0, return_dict=True),
        "steps": int(keras.ops.convert_to_numpy(model.steps)),
        "sums": [float(np.abs(w).sum()) for w in model.get_weights()],
        "moved": float(np.abs(model.get_weights()[5]).max()),
    }
    for name, dataset in (("endless", endless), ("once", once)):
        skipped = data.pipeline_of(dataset).skipped
        found[name] = [os.path.basename(path) for path, _ in skipped]
    return model, found


def main(good_enough, too_bad):
    """Trains, then goes on with data of which one worker finds too much."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    model, found = train(good_enough, strategy)
    report(found)
    dataset = data.from_folder(
        too_bad,
        image_size=16,
        batch_size=4,
        repeat=True,
        on_error="skip",
        max_bad_fraction=0.04,
    )
    try:
        model.fit(dataset, steps_per_epoch=10**6, verbose=0)
    except data.TooManyBadImagesError as error:
        print(f"stopped: {error}", flush=True)
        # As in a notebook: the error is shown, the process stays.
        if os.environ.get("STAYS"):
            time.sleep(120)
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])

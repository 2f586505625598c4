"""One worker of several, which trains until it or another is killed.

Arguments: "fit" (the default), "evaluate" or "validation".
"""

import sys

import keras
import tensorflow as tf
from networks import decoder, encoder, images

from keras_vq import data
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder

strategy = tf.distribute.MultiWorkerMirroredStrategy()
how = sys.argv[1] if len(sys.argv) > 1 else "fit"


class Say(keras.callbacks.Callback):
    """Tells the test that the moment has come."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3 and how == "fit":
            print("training", flush=True)

    def on_test_batch_end(self, batch, logs=None):
        if batch == 3:
            print("evaluating", flush=True)


with strategy.scope():
    model = VQAutoencoder(encoder(), EMAVectorQuantizer(8, 4), decoder())
    model.compile("adam")
pictures = VQAutoencoder.postprocess(images(32, 8, 8, 3))
dataset = data.from_arrays(pictures, batch_size=8, shuffle=True, repeat=True)
for_ever = 10**6
if how == "evaluate":
    model.adapt(dataset)
    model.evaluate(dataset, steps=for_ever, callbacks=[Say()], verbose=0)
else:
    model.fit(
        dataset,
        validation_data=dataset,
        steps_per_epoch=for_ever if how == "fit" else 2,
        validation_steps=for_ever,
        callbacks=[Say()],
        verbose=0,
    )

"""One worker of several: `keras-vq train` of a small recipe.

Arguments: those of the command line after the name of the preset.
"""

import sys

from networks import decoder, encoder, images
from workers_harness import report

from keras_vq import data
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder
from keras_vq.training import recipe, train
from keras_vq.training.optimization import AdamPlan


def pictures(count, seed):
    return VQAutoencoder.postprocess(images(count, 16, 16, 3, seed=seed))


def build_model(recipe, dtype=None):
    quantizer = EMAVectorQuantizer(8, 4, decay=0.9)
    return VQAutoencoder(encoder(), quantizer, decoder(), dtype=dtype)


def train_data(data_dir, batch_size, seed):
    return data.from_arrays(
        pictures(32, 0),
        batch_size=batch_size,
        seed=seed,
        shuffle=True,
        repeat=True,
    )


def validation_data(data_dir, batch_size):
    # No longer a data set that knows its pipeline, as in the real recipes.
    return data.from_arrays(pictures(16, 1), batch_size=batch_size).take(2)


recipe.load_recipe = lambda name, variant=None: recipe.Recipe(
    name=name,
    summary="A tiny model.",
    data="Made in the test.",
    licence="CC0-1.0",
    build_model=build_model,
    train_data=train_data,
    validation_data=validation_data,
    evaluation_set=lambda _: recipe.EvaluationSet(pictures(20, 2), "made."),
    steps=8,
    batch_size=8,
    optimizer=AdamPlan(1e-2, warmup_steps=2),
    weight_ema=0.9,
    steps_per_epoch=4,
)

if __name__ == "__main__":
    report({"code": train.main(["tiny", "--data-dir", ".", *sys.argv[1:]])})

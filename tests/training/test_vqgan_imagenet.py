"""The recipes for ImageNet: their data, and a few steps at reduced size."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import tensorflow as tf

import keras_vq
from keras_vq.applications import imagenet
from keras_vq.applications.vqgan_imagenet import recipe as module
from keras_vq.training import train as train_module
from keras_vq.training.recipe import EvaluationSet, load_recipe
from keras_vq.utils import write_png


def _pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (count, 5, 6, 3)).astype("uint8")
    return corners.repeat(8, axis=1).repeat(8, axis=2)


def _write_records(path, key, count):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in _pictures(count):
            value = tf.io.encode_jpeg(image).numpy()
            feature = tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[value])
            )
            features = tf.train.Features(feature={key: feature})
            example = tf.train.Example(features=features)
            writer.write(example.SerializeToString())


def _write_folder(folder, count):
    folder.mkdir(parents=True)
    for i, image in enumerate(_pictures(count)):
        write_png(folder / f"{i}.png", image)


@pytest.fixture
def layouts(tmp_path):
    """Data directories of each kind, by its name."""
    plain, usual, folders = (tmp_path / n for n in ("plain", "usual", "dirs"))
    for folder in (plain, usual):
        folder.mkdir()
    _write_records(plain / "train.tfrecord", "image", 8)
    _write_records(plain / "validation.tfrecord", "image", 4)
    _write_records(usual / "train-00000-of-00001", "image/encoded", 8)
    _write_records(usual / "validation-00000-of-00001", "image/encoded", 4)
    _write_folder(folders / "train" / "n01440764", 8)
    _write_folder(folders / "val" / "n01440764", 4)
    return {"records": plain, "usual records": usual, "folders": folders}


@pytest.mark.parametrize("kind", ["records", "usual records", "folders"])
def test_data_of_each_layout(kind, layouts):
    data_dir = layouts[kind]
    batches = imagenet.train_data(data_dir, 4, seed=0, image_size=32)
    batch = next(iter(batches)).numpy()
    assert batch.shape == (4, 32, 32, 3)
    assert -1 <= batch.min() < -0.5 and 0.5 < batch.max() <= 1
    evaluated = imagenet.evaluation_set(data_dir, image_size=32)
    assert evaluated.images.shape == (4, 32, 32, 3)
    assert evaluated.images.dtype == np.uint8
    validation = imagenet.validation_data(data_dir, 3, image_size=32)
    assert [len(x) for x in validation] == [3, 1]


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-00000-of-01024.*folder"):
        load_recipe("vqgan_imagenet").train_data(tmp_path, 4, seed=0)


def test_prepared_tfds_is_taken_first(layouts, monkeypatch):
    data_dir = layouts["records"]
    (data_dir / "imagenet2012").mkdir()
    asked = []
    monkeypatch.setattr(
        imagenet.data,
        "from_tfds",
        lambda name, split, **options: asked.append((name, split, options)),
    )
    imagenet.train_data(data_dir, 4, seed=3)
    ((name, split, options),) = asked
    assert (name, split) == ("imagenet2012", "train")
    assert (options["data_dir"], options["seed"]) == (data_dir, 3)
    assert (options["image_size"], options["resize"]) == (256, 288)


def test_without_keras_cv_squares_are_cut(layouts, monkeypatch):
    monkeypatch.setattr(imagenet.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="keras_cv.* not installed"):
        batches = imagenet.train_data(layouts["folders"], 4, 0, image_size=32)
    assert next(iter(batches)).shape == (4, 32, 32, 3)


def test_reference_hyperparameters():
    """Those of the paper's ImageNet models."""
    main, large, l2 = (
        load_recipe("vqgan_imagenet", v) for v in (None, "k16384", "l2")
    )
    for recipe in (main, large):
        for plan in (recipe.optimizer, recipe.discriminator_optimizer):
            assert plan.peak(recipe.batch_size) == pytest.approx(4.5e-6 * 256)
            assert (plan.beta_1, plan.beta_2) == (0.5, 0.9)
    assert main.adversarial_training().first_step == 250_001
    assert large.adversarial_training().first_step == 0
    assert l2.adversarial_training().first_step == 20_000
    assert (main.clipnorm, large.clipnorm, l2.clipnorm) == (None, None, 1.0)
    with pytest.raises(ValueError, match="k16384, l2.*Received: 'f8'"):
        load_recipe("vqgan_imagenet", "f8")


@pytest.mark.parametrize(
    "variant, codes, layers, weight",
    [(None, 1024, 3, 0.8), ("k16384", 16384, 2, 0.75)],
)
def test_networks_are_the_published_ones(
    variant, codes, layers, weight, monkeypatch
):
    """All sizes are VQGAN's defaults, which are those of the paper."""
    asked = {}
    monkeypatch.setattr(module, "VQGAN", lambda **kwargs: asked.update(kwargs))
    recipe = load_recipe("vqgan_imagenet", variant)
    recipe.build_model(recipe)
    assert set(asked) == {
        *("quantizer", "codebook_dim", "codebook_weight"),
        *("commitment_weight", "discriminator", "adversarial"),
        *("perceptual_loss", "dtype", "name"),
    }
    quantizer = asked["quantizer"]
    assert (quantizer.codebook_size, quantizer.codebook_dim) == (codes, 256)
    assert asked["codebook_weight"] == 1.0
    assert asked["discriminator"].num_layers == layers
    assert asked["adversarial"].weight == weight
    assert asked["adversarial"].adaptive_weight


def test_networks_of_unit_codes(monkeypatch):
    """LlamaGen's: narrow codes, squared error, a fixed weight of 0.5."""
    asked = {}
    monkeypatch.setattr(module, "VQGAN", lambda **kwargs: asked.update(kwargs))
    recipe = load_recipe("vqgan_imagenet", "l2")
    recipe.build_model(recipe)
    # Its weights of the codes, 1 and 0.25, are VQGAN's defaults as well.
    assert set(asked) == {
        *("quantizer", "codebook_dim", "reconstruction_loss"),
        *("discriminator", "adversarial", "perceptual_loss", "dtype", "name"),
    }
    quantizer = asked["quantizer"]
    assert (quantizer.codebook_size, quantizer.codebook_dim) == (16384, 8)
    assert quantizer.l2_normalize
    assert asked["codebook_dim"] == 8
    assert asked["reconstruction_loss"] == "mse"
    assert asked["perceptual_loss"] == "vgg"
    assert asked["discriminator"].num_layers == 3
    adversarial = asked["adversarial"]
    assert (adversarial.weight, adversarial.adaptive_weight) == (0.5, False)
    assert (adversarial.loss, adversarial.first_step) == ("hinge", 20_000)


_SMALL = {
    "base_channels": 4,
    "channel_multipliers": (1, 2),
    "residual_blocks": 1,
    "attention_factors": (2,),
    "latent_channels": 4,
    "groups": 2,
    # The weights of VGG16 are 553 MB.
    "perceptual_loss": None,
}


@pytest.mark.parametrize(
    "variant, kind",
    [
        (None, "usual records"),
        pytest.param("k16384", "records", marks=pytest.mark.soak),
        pytest.param("l2", "folders", marks=pytest.mark.soak),
    ],
)
def test_recipe_trains_at_reduced_size(
    variant, kind, layouts, tmp_path, monkeypatch
):
    def small_network(**kwargs):
        return keras_vq.models.VQGAN(**{**kwargs, **_SMALL})

    def small_codebook(size, dim, **kwargs):
        return keras_vq.layers.VectorQuantizer(16, dim, **kwargs)

    def small_discriminator(**kwargs):
        return keras_vq.models.PatchGAN(filters=4, **kwargs)

    monkeypatch.setattr(module, "VQGAN", small_network)
    monkeypatch.setattr(module, "VectorQuantizer", small_codebook)
    monkeypatch.setattr(module, "PatchGAN", small_discriminator)
    recipe = load_recipe("vqgan_imagenet", variant)
    sized = {
        name: functools.partial(getattr(recipe, name), image_size=32)
        for name in ("train_data", "validation_data")
    }
    images = EvaluationSet(_pictures(2)[:, :32, :32], "few.")
    reduced = dataclasses.replace(
        recipe, **sized, evaluation_set=lambda _: images, lpips=None
    )
    monkeypatch.setattr(
        "keras_vq.training.recipe.load_recipe",
        lambda name, variant=None: reduced,
    )
    words = ["vqgan_imagenet", "--data-dir", str(layouts[kind])]
    words += ["--output-dir", str(tmp_path / "out"), "--batch-size", "4"]
    words += ["--steps", "2", "--steps-per-epoch", "2"]
    assert train_module.main([*words, "--discriminator-start", "0"]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["name"] == recipe.name
    assert results["training"]["steps"] == 2
    assert results["training"]["skipped_steps"] == 0
    assert results["training"]["weight_ema"] is None
    assert np.isfinite(results["evaluation"]["psnr_db"])


def test_the_name_means_the_weights_of_others(capsys):
    """The recipe, which the tests above train by its name, has none yet."""
    info = keras_vq.presets.preset_info("vqgan_imagenet")
    assert info["alias_of"] == "vqgan_imagenet_f16_16384"
    with pytest.raises(ValueError, match="train vqvae2_imagenet"):
        keras_vq.models.VQVAE2.from_preset("vqvae2_imagenet")
    assert keras_vq.cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (x for x in lines if x.startswith("vqgan_imagenet "))
    assert row.endswith("[verified on a file of this layout]")
    (line,) = (x for x in lines if x.startswith("Recipes without weights"))
    assert "vqvae2_imagenet" in line and "vqgan_imagenet," not in line

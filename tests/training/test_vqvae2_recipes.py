"""The recipes of VQ-VAE-2: their data, their sizes, and a few steps."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

import keras_vq
from keras_vq.applications.vqvae2_ffhq import recipe as ffhq
from keras_vq.training import train as train_module
from keras_vq.training.recipe import EvaluationSet, load_recipe
from keras_vq.utils import write_png


def _pictures(count, side=40, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (count, 5, 5, 3)).astype("uint8")
    return corners.repeat(side // 5, axis=1).repeat(side // 5, axis=2)


def _write_folder(folder, images):
    for i, image in enumerate(images):
        # As FFHQ's own: a folder for each thousand.
        path = folder / f"{i // 5:02}000" / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, image)


def _write_records(path, images):
    """As FFHQ's own: bytes, channels first, and their shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in images.transpose(0, 3, 1, 2):
            data = tf.train.BytesList(value=[image.tobytes()])
            shape = tf.train.Int64List(value=image.shape)
            feature = {
                "data": tf.train.Feature(bytes_list=data),
                "shape": tf.train.Feature(int64_list=shape),
            }
            features = tf.train.Features(feature=feature)
            example = tf.train.Example(features=features)
            writer.write(example.SerializeToString())


@pytest.fixture(params=["records", "own folders", "any folder"])
def data_dir(request, tmp_path):
    """14 pictures, the last two of which are for validation."""
    images = _pictures(14)
    if request.param == "records":
        _write_records(tmp_path / "ffhq/ffhq-r05.tfrecords", images)
        # Too small, and larger than need be.
        _write_records(tmp_path / "ffhq/ffhq-r04.tfrecords", images[:1])
        _write_records(tmp_path / "ffhq/ffhq-r10.tfrecords", images[:1])
    elif request.param == "own folders":
        _write_folder(tmp_path / "images1024x1024", images)
        _write_folder(tmp_path / "thumbnails128x128", images[:3])
    else:
        _write_folder(tmp_path, images)
    return tmp_path


def test_data_of_ffhq(data_dir):
    batches = ffhq._train_data(data_dir, 4, seed=0, image_size=32)
    pipeline = keras_vq.data.pipeline_of(batches)
    assert pipeline.num_examples == 12
    assert next(iter(batches)).shape == (4, 32, 32, 3)
    validation = ffhq._validation(data_dir, 1, image_size=32, count=500)
    assert [len(batch) for batch in validation] == [1, 1]
    evaluated = ffhq._evaluation_set(data_dir, image_size=32, count=500)
    assert evaluated.images.shape == (2, 32, 32, 3)
    # A tenth of each side is cut off at most.
    means = _pictures(14)[12:].mean(axis=(1, 2))
    np.testing.assert_allclose(
        evaluated.images.mean(axis=(1, 2)), means, atol=12
    )


@pytest.mark.parametrize(
    "name, variant, side, grids",
    [
        ("vqvae2_ffhq", None, 256, [32, 64]),
        ("vqvae2_ffhq", "1024", 1024, [32, 64, 128]),
        ("vqvae2_imagenet", None, 256, [32, 64]),
        ("vqvae2_tiny_imagenet", None, 64, [8, 16]),
    ],
)
def test_sizes_of_the_paper(name, variant, side, grids):
    recipe = load_recipe(name, variant)
    model = recipe.build_model(recipe)
    assert model.name == recipe.name
    assert model.bits_per_level(side, side) == [9 * g * g for g in grids]
    assert model.downsample_factor == side // grids[0]
    for level in model.quantizer.levels():
        assert (level.codebook_size, level.codebook_dim) == (512, 64)
    if "tiny" not in name:
        assert recipe.batch_size == 128


def test_one_level_of_nearly_the_same_bits():
    recipe = load_recipe("vqvae2_tiny_imagenet", "one_level")
    model = recipe.build_model(recipe)
    assert model.bits_per_image(64, 64) == 2816
    other = load_recipe("vqvae2_tiny_imagenet")
    assert other.build_model(other).bits_per_image(64, 64) == 2880
    for name in ("steps", "batch_size", "optimizer", "weight_ema"):
        assert getattr(recipe, name) == getattr(other, name)


def test_trains_beside_another_model(tmp_path, monkeypatch):
    _write_folder(tmp_path / "photos", _pictures(14))
    recipe = load_recipe("vqvae2_ffhq")

    def build(recipe, dtype=None):
        return keras_vq.models.VQVAE2(
            hidden_units=8,
            residual_units=4,
            codebook_size=16,
            codebook_dim=4,
            name=recipe.name,
        )

    images = EvaluationSet(_pictures(3)[:, :32, :32], "few.")
    reduced = dataclasses.replace(
        recipe,
        build_model=build,
        evaluation_set=lambda _: images,
        **{k: v for k, v in ffhq._data(32, 2).items() if k != "evaluation_set"},
    )

    def build_other(recipe, dtype=None):
        return keras_vq.models.VQVAE(
            hidden_units=8, residual_units=4, codebook_size=32, codebook_dim=4
        )

    other = dataclasses.replace(reduced, build_model=build_other, name="other")
    monkeypatch.setattr(
        "keras_vq.training.recipe.load_recipe",
        lambda name, variant=None: other if variant else reduced,
    )
    words = ["vqvae2_ffhq", "--data-dir", str(tmp_path / "photos")]
    words += ["--batch-size", "4", "--steps", "4", "--steps-per-epoch", "2"]
    one, out = str(tmp_path / "one"), str(tmp_path / "out")
    assert (
        train_module.main([*words, "--variant=x", f"--output-dir={one}"]) == 0
    )
    words += ["--output-dir", out, "--baseline", one]
    assert train_module.main(words) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    figures = results["evaluation"]
    assert figures["codebook_size"] == [16, 16]
    assert figures["bits_per_level"] == [4 * 4 * 4, 8 * 8 * 4]
    assert figures["bits_per_image"] == 320
    assert len(figures["perplexity"]) == len(figures["codes_used"]) == 2
    card = (tmp_path / "out/README.md").read_text()
    used = " + ".join(map(str, figures["codes_used"]))
    assert f"{used} of 16 + 16" in card
    assert "## Beside other" in card and "of 32 |" in card
    assert results["baseline"]["evaluation"]["codebook_size"] == 32
    assert (tmp_path / "out/comparison.png").stat().st_size > 0
    model = keras_vq.models.VQVAE2.from_preset(str(tmp_path / "out/preset"))
    assert [x.shape for x in model.encode(np.zeros((1, 32, 32, 3), "float32"))]

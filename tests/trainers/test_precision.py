"""The same image gives the same codes, under each policy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy_reference import nearest

from keras_vq.data import decode_image
from keras_vq.models import VQVAE
from keras_vq.utils.images import write_png

POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def cifar(data_dir, count):
    """uint8 images of the test set, never compressed with loss."""
    with np.load(data_dir / "cifar10" / "lossless_eval.npz") as file:
        return file["image"][:count]


def psnr(a, b):
    """Mean over the images, in dB, of 8-bit levels."""
    errors = ((a.astype("float64") - b.astype("float64")) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / errors)).mean())


def measure(images, policy):
    """Codes, PSNR, and with which share of codes other calls agree."""
    model = VQVAE.from_preset("vqvae_cifar", dtype=policy)
    floats = model.preprocess(images)

    def encode(batch, function=model.encode):
        return np.asarray(function(tf.constant(batch)))

    codes = encode(floats)

    def eagerly(batch):
        return model.quantizer.encode(model.encoder(batch))

    compiled = tf.function(model.encode, jit_compile=True)
    others = {
        "one by one": np.concatenate([encode(f[None]) for f in floats]),
        "batches of 7": np.concatenate(
            [encode(floats[i : i + 7]) for i in range(0, len(floats), 7)]
        ),
        "backwards": encode(floats[::-1])[::-1],
        "eager calls": encode(floats, eagerly),
        "XLA": encode(floats, compiled),
    }
    return {
        "model": model,
        "codes": codes,
        "psnr": psnr(images, model.postprocess(_float(model.decode(codes)))),
        "agree": {k: float((v == codes).mean()) for k, v in others.items()},
    }


def _float(tensor):
    return np.asarray(keras.ops.cast(tensor, "float32"))


def assert_measured(found, expected, policy):
    """What the documentation says of `measure`."""
    for way in ("one by one", "batches of 7", "backwards"):
        assert found["agree"][way] == 1.0, way
    exact = policy == "float32"
    # Other kernels round otherwise, and near-equal distances change places.
    for way in ("eager calls", "XLA"):
        assert found["agree"][way] >= (0.9999 if exact else 0.97), way
    shares = {"float32": 1.0, "mixed_bfloat16": 0.97, "mixed_float16": 0.99}
    assert (found["codes"] == expected["codes"]).mean() >= shares[policy]
    assert found["psnr"] == pytest.approx(expected["psnr"], abs=0.05)


def test_codes_depend_on_the_image_alone(data_dir):
    images = cifar(data_dir, 14)
    expected = measure(images, "float32")
    for policy in POLICIES:
        found = expected if policy == "float32" else measure(images, policy)
        assert_measured(found, expected, policy)
        # The search is that of float64, whatever the policy of the networks.
        model = found["model"]
        encoder = tf.function(model.encoder)
        latents = _float(encoder(model.preprocess(images)))[:4]
        table = np.asarray(model.quantizer.codebook)
        codes, _ = nearest(latents.reshape(-1, table.shape[1]), table)
        np.testing.assert_array_equal(found["codes"][:4].ravel(), codes)


def test_replicas_give_the_codes_of_one_device(data_dir, two_replicas):
    images = VQVAE.preprocess(cifar(data_dir, 8))
    with two_replicas.scope():
        model = VQVAE.from_preset("vqvae_cifar")
    codes = np.asarray(model.encode(images))
    parts = two_replicas.experimental_distribute_values_from_function(
        lambda c: tf.constant(images[4 * c.replica_id_in_sync_group :][:4])
    )
    found = two_replicas.run(tf.function(model.encode), args=(parts,))
    found = two_replicas.experimental_local_results(found)
    np.testing.assert_array_equal(np.concatenate(found), codes)


def test_codes_survive_a_file(data_dir, tmp_path):
    """Decoded images, rounded and written, give the codes of the file."""
    model = VQVAE.from_preset("vqvae_cifar")
    images = model.preprocess(cifar(data_dir, 4))
    decoded = model.postprocess(_float(model.decode(model.encode(images))))
    codes = np.asarray(model.encode(model.preprocess(decoded)))
    for image, expected in zip(decoded, codes, strict=True):
        write_png(tmp_path / "image.png", image)
        read = decode_image((tmp_path / "image.png").read_bytes())
        np.testing.assert_array_equal(read, image)
        found = model.encode(model.preprocess(tf.constant(read[None])))
        np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_preprocess_is_exact_everywhere(jit_compile):
    """Compilers would divide by multiplying, and round otherwise."""
    levels = np.arange(256, dtype="uint8").reshape(4, 8, 8, 1)
    function = VQVAE.preprocess
    if jit_compile is not None:
        function = tf.function(function, jit_compile=jit_compile)
    found = np.asarray(function(tf.constant(levels)))
    expected = np.float32(levels.astype("float64")) / np.float32(127.5) - 1
    np.testing.assert_array_equal(found, expected.astype("float32"))


@pytest.mark.parametrize("policy", POLICIES)
def test_quantizer_computes_in_float32(policy):
    keras.utils.set_random_seed(0)
    model = VQVAE(
        hidden_units=8, residual_units=4, codebook_dim=4, dtype=policy
    )
    images = np.zeros((2, 8, 8, 3), "float32")
    output = model.quantizer(model.encoder(images), training=True)
    for value in [
        *output["losses"].values(),
        *output["statistics"].values(),
        model.quantizer.codebook,
    ]:
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
    compute = policy.removeprefix("mixed_")
    quantized = keras.backend.standardize_dtype(output["quantized"].dtype)
    assert quantized == compute

"""What a quantizer computes, against the papers' formulas in float64."""

import keras
import numpy as np
import pytest
from cases import QUANTIZERS, parametrize
from differentiation import gradients
from keras import ops

pytestmark = parametrize(QUANTIZERS)

SIDES = {
    "vectors": (9,),
    "1-D": (5, 7),
    "2-D": (3, 4, 5),
    "3-D": (2, 3, 2, 4),
}
any_rank = pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)


@any_rank
def test_shapes_and_dtypes(case, sides):
    quantizer, latents = case.make(), case.latents(*sides)
    output = quantizer(latents)
    assert set(output) == {"quantized", "indices", "losses"}
    assert output["quantized"].shape == latents.shape
    assert output["quantized"].dtype == "float32"
    assert output["indices"].shape == sides
    assert output["indices"].dtype == "int32"
    assert set(output["losses"]) == set(case.losses)
    for loss in output["losses"].values():
        assert loss.shape == () and loss.dtype == "float32"
    training = quantizer(latents, training=True)
    assert set(training) == {*output, "statistics"}
    for name, value in training["statistics"].items():
        assert value.dtype == "float32", name


@any_rank
def test_nearest_codes(case, sides):
    quantizer, latents = case.make(), case.latents(*sides)
    reference = case.reference(quantizer)
    expected, certain = reference.indices(latents)
    assert certain.mean() > 0.95
    assert len(np.unique(expected)) > 3
    output = quantizer(latents)
    indices = np.asarray(output["indices"])
    np.testing.assert_array_equal(indices[certain], expected[certain])
    np.testing.assert_allclose(
        output["quantized"], reference.decoded(indices), atol=2e-6
    )
    np.testing.assert_array_equal(quantizer.encode(latents), indices)
    for name, value in reference.losses(latents).items():
        if name in case.losses:
            np.testing.assert_allclose(output["losses"][name], value, rtol=1e-5)


def test_quantized_is_exactly_the_code(case):
    """z + (q - z) would round: far latents make that visible."""
    quantizer, latents = case.make(), 1000 * case.latents(3, 4, 5)
    output = quantizer(latents)
    decoded = quantizer.decode(output["indices"])
    np.testing.assert_array_equal(output["quantized"], decoded)
    if quantizer.project_out is None and not quantizer.l2_normalize:
        rows = np.asarray(quantizer.codebook)[np.asarray(output["indices"])]
        np.testing.assert_array_equal(decoded, rows)


def test_a_call_changes_nothing(case):
    quantizer = case.make()
    before = [np.asarray(w) for w in quantizer.weights]
    quantizer(case.latents(3, 4, 5), training=True)
    for old, new in zip(before, quantizer.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert quantizer.losses == []


# Gradients


def _gradients(quantizer, latents, loss):
    """Gradients by path of the variables, those that are there."""
    variables = quantizer.trainable_variables
    found = gradients(
        lambda x: loss(quantizer(x, training=True)), latents, variables
    )
    names = ["latents", *(_short(v.path) for v in variables)]
    return {
        name: gradient
        for name, gradient in zip(names, found, strict=True)
        if gradient is not None
    }


def _short(path):
    parts = path.split("/")
    at = next((i for i, p in enumerate(parts) if "project" in p), -1)
    return "/".join(parts[at:])


def _assert_same_gradients(found, expected):
    assert {n for n, g in found.items() if np.any(g)} == set(expected)
    for name, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(
            found[name], value, rtol=1e-4, atol=1e-5 * scale
        )


def test_straight_through_gradient(case):
    quantizer, latents = case.make(), case.latents(3, 4, 5)
    weight = case.latents(3, 4, 5, seed=1)
    found = _gradients(
        quantizer,
        latents,
        lambda output: ops.sum(output["quantized"] * weight),
    )
    expected = case.reference(quantizer).straight_through_gradients(
        latents, weight.astype("float64")
    )
    _assert_same_gradients(found, expected)
    if quantizer.project_in is None and not quantizer.l2_normalize:
        np.testing.assert_array_equal(found["latents"], weight)


def test_each_loss_moves_only_what_it_should(case):
    quantizer, latents = case.make(), case.latents(3, 4, 5)
    reference = case.reference(quantizer)
    for name in case.losses:
        found = _gradients(
            quantizer, latents, lambda output, n=name: output["losses"][n]
        )
        _assert_same_gradients(found, reference.loss_gradients(name, latents))


# Masks


def _mask(*sides):
    mask = np.random.default_rng(5).random(sides) < 0.6
    mask[0] = True
    mask[-1] = False  # an example that is padding alone
    return mask


@any_rank
def test_padding_counts_nowhere(case, sides):
    quantizer = case.make(revival_threshold=0.1)
    latents, mask = case.latents(*sides), _mask(*sides)
    output = quantizer(latents, mask=mask, training=True)
    reference = case.reference(quantizer)
    for name, value in reference.losses(latents, mask).items():
        if name in case.losses:
            np.testing.assert_allclose(output["losses"][name], value, rtol=1e-5)
    statistics = output["statistics"]
    counts, sums = reference.uses(latents, mask)
    np.testing.assert_array_equal(statistics["counts"], counts)
    if "sums" in statistics:
        np.testing.assert_allclose(statistics["sums"], sums, atol=1e-5)
    # Other values under the mask change nothing.
    for value in (50.0, np.nan):
        changed = np.where(mask[..., None], latents, value).astype("float32")
        other = quantizer(changed, mask=mask, training=True)
        for part in ("statistics", "losses"):
            for name, want in output[part].items():
                np.testing.assert_array_equal(other[part][name], want)


def test_mask_without_any_padding_is_no_mask(case):
    quantizer, latents = case.make(), case.latents(3, 4, 5)
    plain = quantizer(latents, training=True)
    masked = quantizer(latents, mask=np.ones((3, 4, 5), bool), training=True)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain, masked
    )


def test_empty_batch(case):
    quantizer = case.make(revival_threshold=0.1)
    output = quantizer(case.latents(0, 4, 5), training=True)
    assert output["quantized"].shape == (0, 4, 5, case.channels)
    assert output["indices"].shape == (0, 4, 5)
    for value in output["losses"].values():
        assert float(value) == 0.0
    for value in output["statistics"].values():
        assert not np.any(value)
    codebook = np.asarray(quantizer.codebook)
    quantizer.update(output["statistics"], 1)
    np.testing.assert_allclose(quantizer.codebook, codebook, rtol=1e-4)


# Precision and compilation


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(case, policy):
    quantizer, latents = case.make(dtype=policy), case.latents(3, 4, 5)
    compute_dtype = policy.removeprefix("mixed_")
    output = quantizer(latents, training=True)
    assert output["quantized"].dtype == compute_dtype
    assert output["indices"].dtype == "int32"
    for value in (*output["losses"].values(), *output["statistics"].values()):
        assert value.dtype == "float32"
    for weight in quantizer.weights:
        assert weight.dtype == "float32"
    np.testing.assert_array_equal(quantizer.encode(latents), output["indices"])
    decoded = quantizer.decode(output["indices"])
    assert decoded.dtype == compute_dtype
    np.testing.assert_array_equal(
        ops.cast(output["quantized"], "float32"), ops.cast(decoded, "float32")
    )
    if quantizer.project_in is None:
        # Only the latents are rounded, nothing after them.
        rounded = ops.cast(ops.cast(latents, compute_dtype), "float32")
        expected, certain = case.reference(quantizer).indices(rounded)
        np.testing.assert_array_equal(
            np.asarray(output["indices"])[certain], expected[certain]
        )


def test_xla_and_unknown_sizes(case, on_tensorflow):
    import tensorflow as tf

    quantizer = case.make(revival_threshold=0.1)
    latents = case.latents(3, 4, 5)
    spec = tf.TensorSpec((None, None, None, case.channels))
    eager = quantizer(latents, training=True)
    for jit_compile in (False, True):
        compiled = tf.function(
            lambda x: quantizer(x, training=True),
            input_signature=[spec],
            jit_compile=jit_compile,
        )(latents)
        np.testing.assert_array_equal(compiled["indices"], eager["indices"])
        tf.nest.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6),
            compiled,
            eager,
        )

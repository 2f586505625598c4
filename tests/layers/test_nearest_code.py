"""nearest_code: right, chunked, and bounded in memory."""

import importlib
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from numpy_reference import nearest

from keras_vq.layers import nearest_code

# The package exports the function under the name of its module.
module = importlib.import_module("keras_vq.layers.quantizers.nearest_code")


def _data(count, size, dim, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dim)).astype("float32")
    return vectors, rng.normal(size=(size, dim)).astype("float32")


@pytest.mark.parametrize(
    "count, size, dim",
    [(1, 1, 1), (50, 7, 3), (300, 64, 32), (5, 200, 256), (50, 5_000, 8)],
)
def test_against_distances_in_float64(count, size, dim):
    vectors, codebook = _data(count, size, dim)
    indices = np.asarray(nearest_code(vectors, codebook))
    assert indices.dtype == "int32" and indices.shape == (count,)
    if size == 1:
        assert not indices.any()
        return
    expected, margin = nearest(vectors, codebook)
    certain = margin > 1e-4
    assert certain.mean() > 0.95
    np.testing.assert_array_equal(indices[certain], expected[certain])


def test_codes_of_unlike_length():
    """The largest product is not the nearest code."""
    codebook = np.array([[1.0, 0.0], [10.0, 0.0], [0.0, 0.0]], "float32")
    vectors = np.array([[2.0, 0.0], [6.0, 0.0], [0.4, 0.0]], "float32")
    np.testing.assert_array_equal(nearest_code(vectors, codebook), [0, 1, 2])


@pytest.mark.parametrize("limit", [2**24, 12])
@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_ties_go_to_the_lowest_index(limit, block, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DISTANCES", limit)
    monkeypatch.setattr(module, "_MAX_CODES", block)
    codebook = np.array([[9, 9], [1, 0], [-1, 0], [1, 0]], "float32")
    vectors = np.array([[0, 0], [5, 0], [-5, 0], [0, 3], [1, 0]], "float32")
    indices = nearest_code(vectors, codebook)
    np.testing.assert_array_equal(indices, [1, 1, 2, 1, 1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_are_compared_in_float32(dtype):
    vectors, codebook = _data(100, 16, 4)
    vectors, codebook = tf.cast(vectors, dtype), tf.cast(codebook, dtype)
    expected, margin = nearest(
        tf.cast(vectors, "float64"), tf.cast(codebook, "float64")
    )
    indices = np.asarray(nearest_code(vectors, codebook))
    certain = margin > 1e-5
    np.testing.assert_array_equal(indices[certain], expected[certain])


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("block", [10, 4])
def test_chunks(count, known, jit_compile, block, monkeypatch):
    vectors, codebook = _data(100, 10, 3)
    vectors = vectors[:count]
    expected, margin = nearest(vectors, codebook)
    assert (margin > 1e-6).all()
    # 8 vectors at a time; all codes, or two blocks of 4 and one of 2.
    monkeypatch.setattr(module, "_MAX_DISTANCES", 8 * block)
    monkeypatch.setattr(module, "_MAX_CODES", block)
    function = tf.function(
        lambda x: nearest_code(x, codebook),
        input_signature=[tf.TensorSpec((count if known else None, 3))],
        jit_compile=jit_compile,
    )
    np.testing.assert_array_equal(function(vectors), expected)


def test_codebook_above_the_limit(monkeypatch):
    """One vector at a time is the least."""
    monkeypatch.setattr(module, "_MAX_DISTANCES", 5)
    vectors, codebook = _data(6, 10, 3)
    expected, _ = nearest(vectors, codebook)
    np.testing.assert_array_equal(nearest_code(vectors, codebook), expected)


def test_a_large_codebook_has_few_blocks(monkeypatch):
    monkeypatch.setattr(module, "_MAX_CODES", 2)
    monkeypatch.setattr(module, "_MAX_BLOCKS", 3)
    vectors, codebook = _data(50, 100, 3)
    expected, margin = nearest(vectors, codebook)
    assert (margin > 1e-6).all()
    function = tf.function(lambda x: nearest_code(x, codebook))
    np.testing.assert_array_equal(function(vectors), expected)
    graph = function.get_concrete_function(vectors).graph
    assert sum(x.type == "MatMul" for x in graph.get_operations()) == 3


def test_no_gradient():
    vectors, codebook = (tf.constant(x) for x in _data(5, 4, 3))
    with tf.GradientTape() as tape:
        tape.watch([vectors, codebook])
        indices = tf.cast(nearest_code(vectors, codebook), tf.float32)
    assert tape.gradient(indices, [vectors, codebook]) == [None, None]


def _memory(field):
    status = pathlib.Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def test_memory_is_bounded():
    """All distances at once would take 2 GiB."""
    reset = pathlib.Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # the peak starts over
    except OSError:
        pytest.skip("Only Linux tells the peak of a process anew.")
    vectors, codebook = _data(65_536, 8_192, 3)
    before = _memory("VmRSS")
    indices = np.asarray(nearest_code(vectors, codebook))
    growth = _memory("VmHWM") - before
    assert growth < 256 * 2**20, f"{growth / 2**20:.0f} MiB"
    expected, margin = nearest(vectors[-50:], codebook)
    certain = margin > 1e-5
    np.testing.assert_array_equal(indices[-50:][certain], expected[certain])

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_vq.metrics import CodebookPerplexity, CodesUsed

K = 64
METRICS = [CodebookPerplexity, CodesUsed]


def skewed_codes(shape=(6, 5, 7), seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(K, 0.2))
    return rng.choice(K, size=shape, p=p).astype("int32")


def expected(cls, codes, weights=None):
    weights = None if weights is None else np.ravel(weights)
    counts = np.bincount(np.ravel(codes), weights=weights, minlength=K)
    if cls is CodesUsed:
        return np.count_nonzero(counts)
    return np.exp(scipy.stats.entropy(counts))


@pytest.mark.parametrize("cls", METRICS)
def test_epoch_level_in_eager_graph_and_xla(cls):
    batches = [skewed_codes(seed=seed) for seed in range(4)]
    want = expected(cls, np.stack(batches))
    for jit in (None, False, True):
        metric = cls(K)
        update = metric.update_state
        if jit is not None:
            update = tf.function(update, jit_compile=jit)
        for codes in batches:
            update(tf.constant(codes))
        np.testing.assert_allclose(metric.result(), want, rtol=1e-6)
        metric.reset_state()
        assert float(metric.result()) == 0.0


def test_closed_forms():
    metric = CodebookPerplexity(K)
    metric.update_state(np.arange(K).reshape(4, -1))
    np.testing.assert_allclose(metric.result(), K, rtol=1e-6)
    metric.reset_state()
    metric.update_state(np.full((3, 3), 5))
    assert float(metric.result()) == 1.0


@pytest.mark.parametrize("cls", METRICS)
@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 7), (6, 1, 1)])
def test_masks_of_leading_axes(cls, shape):
    codes = skewed_codes()
    mask = np.random.default_rng(3).random(shape) < 0.5
    mask.flat[:2] = True, False
    metric = cls(K)
    metric.update_state(codes, mask=mask)
    full = mask.reshape(shape + (1,) * (3 - len(shape)))
    full = np.broadcast_to(full, codes.shape)
    np.testing.assert_allclose(
        metric.result(), expected(cls, codes, full), rtol=1e-6
    )


def test_sample_weight():
    codes = skewed_codes()
    weights = np.array([0, 1, 2, 0.5, 0, 3.0])
    metric = CodebookPerplexity(K)
    metric.update_state(codes, sample_weight=weights)
    full = np.broadcast_to(weights[:, None, None], codes.shape)
    want = expected(CodebookPerplexity, codes, full)
    np.testing.assert_allclose(metric.result(), want, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_negative_indices_are_not_counted(jit):
    metric = CodesUsed(K)
    update = tf.function(metric.update_state, jit_compile=jit)
    update(tf.constant([[-1, 3], [3, -2]]))
    assert float(metric.result()) == 1.0
    assert metric.counts.numpy().sum() == 2.0


@pytest.mark.parametrize("cls", METRICS)
def test_nothing_counted(cls):
    metric = cls(K)
    assert float(metric.result()) == 0.0
    metric.update_state(np.zeros((0, 8, 8), "int32"))
    assert float(metric.result()) == 0.0
    metric.update_state(np.zeros((2, 8), "int32"), mask=np.zeros((2, 8)))
    assert float(metric.result()) == 0.0


@pytest.mark.parametrize("cls", METRICS)
def test_replicas_equal_one_device(cls, two_replicas):
    codes = [skewed_codes((n, 4, 4), seed=n) for n in (5, 2, 3, 0)]
    with two_replicas.scope():
        metric = cls(K)

    @tf.function(reduce_retracing=True)
    def step(values):
        two_replicas.run(metric.update_state, args=(values,))

    for pair in (codes[:2], codes[2:]):
        step(
            two_replicas.experimental_distribute_values_from_function(
                lambda ctx, pair=pair: tf.constant(
                    pair[ctx.replica_id_in_sync_group]
                )
            )
        )
    single = cls(K)
    for part in codes:
        single.update_state(part)
    np.testing.assert_array_equal(metric.counts, single.counts)
    assert float(metric.result()) == float(single.result())
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_state_is_float32_under_any_policy(dtype_policy):
    for policy in ("mixed_float16", "mixed_bfloat16"):
        dtype_policy(policy)
        metric = CodebookPerplexity(K, dtype="float16")
        assert {v.dtype for v in metric.variables} == {"float32"}
        metric.update_state(np.repeat(np.arange(K), 3000))
        np.testing.assert_allclose(metric.result(), K, rtol=1e-6)


@pytest.mark.parametrize("cls", METRICS)
def test_configuration(cls):
    metric = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(cls(K, name="mine"))
    )
    assert type(metric) is cls
    assert (metric.name, metric.codebook_size) == ("mine", K)


def test_errors():
    metric = CodebookPerplexity(K)
    with pytest.raises(ValueError, match=f"below codebook_size={K}.*{K}"):
        metric.update_state(np.array([1, K]))
    with pytest.raises(ValueError, match="integers.*float32"):
        metric.update_state(np.array([1.0, 2.0], "float32"))
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match="positive integer"):
            CodebookPerplexity(size)

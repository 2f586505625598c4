"""How a quantizer learns, against NumPy in float64."""

import numpy as np
import pytest
from cases import QUANTIZERS, parametrize

from keras_vq.layers import statistics_slot

pytestmark = parametrize(QUANTIZERS)


def _state(quantizer):
    return [np.asarray(w) for w in quantizer.weights]


def _assert_same(before, quantizer):
    for old, new in zip(before, _state(quantizer), strict=True):
        np.testing.assert_array_equal(old, new)


def _statistics(quantizer, latents, parts):
    """Statistics of the parts of a batch, added up."""
    total = None
    for index, part in enumerate(np.array_split(latents, parts)):
        with statistics_slot(index, parts):
            output = quantizer(part, training=True)["statistics"]
        total = output if total is None else _sum(total, output)
    return total


def _sum(a, b):
    return {name: a[name] + b[name] for name in a}


# Statistics


def test_statistics_add_up(case):
    quantizer = case.make(revival_threshold=0.1)
    latents = case.latents(8, 3, 3)
    whole = _statistics(quantizer, latents, 1)
    assert np.sum(whole["candidate_counts"]) == 16
    for parts in (2, 4, 8):
        split = _statistics(quantizer, latents, parts)
        assert set(split) == set(whole)
        for name, value in whole.items():
            if name.endswith("counts"):
                np.testing.assert_array_equal(split[name], value)
            np.testing.assert_allclose(split[name], value, atol=1e-5)


def test_parts_of_unequal_size_give_real_latents(case):
    """Where two parts fill a row, or none, it must not be used."""
    quantizer = case.make(revival_threshold=0.1)
    latents = case.latents(7, 1, 3)
    statistics = _statistics(quantizer, latents, 4)
    counts, sums = case.reference(quantizer).uses(latents)
    np.testing.assert_array_equal(statistics["counts"], counts)
    if "sums" in statistics:
        np.testing.assert_allclose(statistics["sums"], sums, atol=1e-5)
    usable = np.asarray(statistics["candidate_counts"]) == 1
    assert usable.sum() >= 8
    vectors = case.reference(quantizer).vectors(latents)
    _assert_rows_of(np.asarray(statistics["candidates"])[usable], vectors)


def _assert_rows_of(rows, vectors):
    vectors = vectors.reshape(-1, rows.shape[-1])
    distances = np.abs(rows[:, None] - vectors[None]).max(-1).min(1)
    assert distances.max() < 1e-5


# Update


def test_update_for_several_steps(case):
    quantizer = case.make(decay=0.9, revival_threshold=0)
    reference = case.reference(quantizer)
    for step in range(6):
        latents = case.latents(4, 3, 3, seed=step)
        mask = np.random.default_rng(step).random((4, 3, 3)) < 0.8
        assert reference.indices(latents)[1].all()
        output = quantizer(latents, mask=mask, training=True)
        quantizer.update(output["statistics"], step)
        reference.update(latents, mask)
        for name, value in reference.state().items():
            np.testing.assert_allclose(
                getattr(quantizer, name), value, rtol=2e-5, atol=1e-6
            )


def test_frozen_quantizer_does_not_learn(case):
    quantizer = case.make()
    quantizer.trainable = False
    assert quantizer.trainable_variables == []
    before = _state(quantizer)
    output = quantizer(case.latents(4, 3, 3), training=True)
    quantizer.update(output["statistics"], 1)
    _assert_same(before, quantizer)
    quantizer.trainable = True
    quantizer.update(output["statistics"], 1)
    assert np.any(before[-1] != _state(quantizer)[-1]) or np.any(
        np.asarray(quantizer.counts) != 1
    )


# Revival


def _with_dead_codes(case, dead, **arguments):
    """A quantizer some of whose codes have not been used for long."""
    quantizer = case.make(revival_threshold=0.1, **arguments)
    codes = np.asarray(quantizer.codebook).copy()
    # Of equal codes only the first is ever chosen.
    codes[dead] = codes[0]
    quantizer._restart(codes)
    counts = np.ones(quantizer.codebook_size, "float32")
    counts[dead] = 1e-4
    quantizer.counts.assign(counts)
    return quantizer


def test_dead_codes_move_onto_latents_of_the_batch(case):
    dead = [2, 5, 11]
    quantizer = _with_dead_codes(case, dead, decay=0.99)
    before = np.asarray(quantizer.codebook)
    latents = case.latents(8, 3, 3)
    output = quantizer(latents, training=True)
    assert not np.isin(output["indices"], dead).any()
    quantizer.update(output["statistics"], 7)
    after = np.asarray(quantizer.codebook)
    counts = np.asarray(quantizer.counts)
    vectors = case.reference(quantizer).vectors(latents)
    _assert_rows_of(after[dead], vectors)
    assert len(np.unique(after[dead], axis=0)) == len(dead)
    # Their past is gone: they count like an average code.
    alive = np.delete(np.arange(16), dead)
    uses = np.asarray(output["statistics"]["counts"])
    decayed = 0.99 * np.where(np.isin(np.arange(16), dead), 1e-4, 1.0)
    np.testing.assert_allclose(
        counts[dead], (decayed + 0.01 * uses).mean(), rtol=1e-5
    )
    if hasattr(quantizer, "sums"):
        np.testing.assert_allclose(
            np.asarray(quantizer.sums)[dead],
            after[dead] * counts[dead][:, None],
            rtol=1e-5,
        )
    else:
        np.testing.assert_array_equal(after[alive], before[alive])
    # They are in use from now on, and are not moved again.
    revived = quantizer.encode(latents)
    assert np.isin(dead, revived).all()
    quantizer.update(quantizer(latents, training=True)["statistics"], 8)
    moved = np.abs(np.asarray(quantizer.codebook)[dead] - after[dead])
    assert moved.max() < 0.2


def test_revival_follows_from_the_step_alone(case):
    latents = case.latents(8, 3, 3)
    results = {}
    for step, parts in [(3, 1), (3, 2), (3, 4), (4, 1)]:
        quantizer = _with_dead_codes(case, [2, 5, 11])
        statistics = _statistics(quantizer, latents, parts)
        quantizer.update(statistics, step)
        results[step, parts] = np.asarray(quantizer.codebook)
    for parts in (2, 4):
        np.testing.assert_allclose(results[3, parts], results[3, 1], atol=1e-6)
    assert np.abs(results[4, 1] - results[3, 1])[[2, 5, 11]].max() > 1e-3


def test_revival_stops_at_the_latents_there_are(case):
    """More dead codes than candidates: the others wait for the next step."""
    dead = list(range(1, 16))
    quantizer = _with_dead_codes(case, dead)
    mask = np.zeros((4, 1, 1), bool)
    mask[0] = True
    latents = case.latents(4, 1, 1)
    output = quantizer(latents, mask=mask, training=True)
    available = int(np.sum(output["statistics"]["candidate_counts"]))
    quantizer.update(output["statistics"], 1)
    codes = np.asarray(quantizer.codebook)[dead]
    valid = case.reference(quantizer).vectors(latents[:1])
    near = np.abs(codes - valid.reshape(-1)).max(1) < 1e-5
    assert 0 < available < 15
    assert near.sum() == available


def test_no_revival_when_switched_off(case):
    quantizer = _with_dead_codes(case, [2, 5, 11])
    quantizer.revival_threshold = 0
    output = quantizer(case.latents(8, 3, 3), training=True)
    assert not any("candidate" in name for name in output["statistics"])
    quantizer.update(output["statistics"], 1)
    codes = np.asarray(quantizer.codebook)
    assert (np.asarray(quantizer.counts)[[2, 5, 11]] < 1e-3).all()
    if not hasattr(quantizer, "sums"):
        np.testing.assert_array_equal(codes[[2, 5, 11]], codes[[0, 0, 0]])


def test_revival_by_hand(case):
    quantizer = _with_dead_codes(case, [2, 5])
    latents = case.latents(8, 3, 3)
    assert quantizer.revive(latents) == 2
    vectors = case.reference(quantizer).vectors(latents)
    _assert_rows_of(np.asarray(quantizer.codebook)[[2, 5]], vectors)
    before = _state(quantizer)
    assert quantizer.revive(latents) == 0
    _assert_same(before, quantizer)


# Start from data


def _distortion(case, quantizer, latents):
    return case.reference(quantizer).losses(latents)["commitment"]


def test_kmeans_beats_random_latents(case):
    latents = case.latents(100, 3, 3)
    distortions = {}
    for start in ("data", "kmeans"):
        quantizer = case.make(codebook_initializer=start)
        assert not quantizer.initialized
        quantizer.adapt(latents)
        assert quantizer.initialized
        distortions[start] = _distortion(case, quantizer, latents)
        again = case.make(codebook_initializer=start)
        # The projections start at random, so copy them.
        again.set_weights(quantizer.get_weights())
        again.adapt(latents)
        _assert_same(_state(quantizer), again)
        if start == "data":
            vectors = case.reference(quantizer).vectors(latents)
            _assert_rows_of(np.asarray(quantizer.codebook), vectors)
    assert distortions["kmeans"] < 0.95 * distortions["data"]


def test_adapt_forgets_the_past(case):
    quantizer = case.make(codebook_initializer="kmeans", decay=0.5)
    latents = case.latents(20, 3, 3)
    quantizer.update(quantizer(latents, training=True)["statistics"], 1)
    quantizer.adapt(latents)
    np.testing.assert_array_equal(quantizer.counts, np.ones(16))
    if hasattr(quantizer, "sums"):
        np.testing.assert_array_equal(quantizer.sums, quantizer.codebook)


def test_adapt_with_fewer_latents_than_codes(case):
    for start in ("data", "kmeans"):
        quantizer = case.make(codebook_initializer=start)
        quantizer.adapt(case.latents(5))
        codes = np.asarray(quantizer.codebook)
        assert len(np.unique(codes, axis=0)) == 16
        vectors = case.reference(quantizer).vectors(case.latents(5))
        distances = np.abs(codes[:, None] - vectors[None]).max(-1).min(1)
        assert distances.max() < 0.2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_adapt_refuses_what_is_not_finite(case, value):
    quantizer = case.make(codebook_initializer="kmeans")
    latents = case.latents(5, 3)
    latents[2, 1, 0] = value
    before = _state(quantizer)
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantizer.adapt(latents)
    with pytest.raises(ValueError, match="one or more"):
        quantizer.adapt(case.latents(0, 3))
    _assert_same(before, quantizer)

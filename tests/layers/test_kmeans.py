"""k-means and the choice of start values."""

import numpy as np
import pytest

from keras_vq.layers.quantizers.kmeans import kmeans, sample_rows


def _clusters(count=5, each=40, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    centers = 20 * rng.normal(size=(count, dim))
    points = centers[:, None] + rng.normal(size=(count, each, dim))
    return points.astype("float32")


def _sorted(rows):
    return rows[np.argsort(rows[:, 0])]


def test_centers_are_the_means_of_clear_clusters():
    """Found from each start: a lucky start would not tell."""
    points = _clusters()
    means = _sorted(points.mean(1))
    found = 0
    for seed in range(10):
        centers = kmeans(points.reshape(-1, 3), 5, seed=seed)
        assert centers.dtype == "float32"
        found += np.allclose(_sorted(centers), means, atol=1e-4)
    assert found >= 1
    # With a center to spare in each cluster none is left out.
    centers = kmeans(points.reshape(-1, 3), 40, seed=0)
    nearest = np.linalg.norm(means[:, None] - centers[None], axis=-1).min(1)
    assert nearest.max() < 2.0


def test_each_pass_lowers_the_distortion():
    points = _clusters(count=9, each=30).reshape(-1, 3)
    distortions = []
    for iterations in (0, 1, 2, 5, 20):
        centers = kmeans(points, 12, iterations=iterations, seed=3)
        distances = ((points[:, None] - centers[None]) ** 2).sum(-1)
        distortions.append(distances.min(1).mean())
    assert all(np.diff(distortions) <= 1e-3)
    assert distortions[-1] < 0.7 * distortions[0]


def test_no_center_is_left_without_data():
    """Ten equal points and one far away: most centers run empty."""
    points = np.zeros((11, 2), "float32")
    points[-1] = 50.0
    centers = kmeans(points, 4, seed=0)
    near = np.abs(centers[:, None] - points[None]).max(-1).min(1)
    assert near.max() < 1e-5


def test_spherical_centers_have_unit_length():
    points = _clusters().reshape(-1, 3)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    centers = kmeans(points, 6, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, atol=1e-5)
    plain = kmeans(points, 6)
    assert np.linalg.norm(plain, axis=1).min() < 0.999


def test_same_seed_same_centers():
    points = _clusters().reshape(-1, 3)
    np.testing.assert_array_equal(
        kmeans(points, 9, seed=4), kmeans(points, 9, seed=4)
    )
    assert np.any(kmeans(points, 9, seed=4) != kmeans(points, 9, seed=5))


@pytest.mark.parametrize("count", [1, 7, 20])
def test_rows_are_different_ones(count):
    points = np.arange(60, dtype="float32").reshape(20, 3)
    rows = sample_rows(points, count, seed=1)
    assert rows.shape == (count, 3) and rows.dtype == "float32"
    assert len(np.unique(rows, axis=0)) == count
    assert np.isin(rows[:, 0], points[:, 0]).all()


def test_more_rows_than_there_are():
    points = np.arange(12, dtype="float32").reshape(4, 3)
    rows = sample_rows(points, 10, seed=1)
    assert len(np.unique(rows, axis=0)) == 10
    distances = np.abs(rows[:, None] - points[None]).max(-1)
    uses = np.bincount(distances.argmin(1), minlength=4)
    assert set(uses) <= {2, 3}
    assert distances.min(1).max() < 0.5

"""The random numbers: known values, uniformity, independence of streams."""

import numpy as np
import pytest

from keras_vq.data import randomness
from keras_vq.data.crc32c import crc32c, masked_crc32c


def split_mix(state):
    """SplitMix64's output function, in Python's own integers."""
    mask = (1 << 64) - 1
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
    return state ^ state >> 31


@pytest.mark.parametrize("seed", [0, 1, -1, 2**70 + 5])
def test_hashes_are_those_of_split_mix(seed):
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    key = split_mix(seed + golden * randomness.FLIP & mask)
    positions = [0, 1, 5, 2**40]
    expected = [split_mix(key + p * golden & mask) for p in positions]
    found = randomness.hashes(seed, randomness.FLIP, positions)
    assert [int(x) for x in found] == expected


def test_uniform_numbers_fill_the_unit_interval():
    numbers = randomness.uniform(3, randomness.FLIP, np.arange(100_000))
    counts, _ = np.histogram(numbers, 20, (0, 1))
    # Chi-square with 19 degrees of freedom: 43.8 is the 0.1 % point.
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8
    neighbours = np.corrcoef(numbers[1:], numbers[:-1])[0, 1]
    assert abs(neighbours) < 0.015


def test_streams_and_seeds_do_not_follow_each_other():
    places = np.arange(20_000)
    streams = [
        randomness.uniform(seed, stream, places)
        for seed in (0, 1)
        for stream in (randomness.FLIP, randomness.CROP_X, randomness.CROP_Y)
    ]
    correlations = np.corrcoef(streams) - np.eye(6)
    assert np.abs(correlations).max() < 0.03


def test_permutations_hold_everything_once_and_differ():
    orders = [randomness.permutation(7, epoch, 500) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
        assert np.mean(order == np.arange(500)) < 0.05
    assert np.mean(orders[0] == orders[1]) < 0.05
    assert np.mean(orders[0] == randomness.permutation(8, 0, 500)) < 0.05


def bitwise_crc(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and the next: RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_checksums_of_the_standard(data, expected):
    assert crc32c(data) == expected


@pytest.mark.parametrize(
    "size", [1, 2, 3, 4, 5, 1023, 1024, 1025, 1026, 2048, 3333]
)
def test_checksums_of_any_length(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == bitwise_crc(data)
    rotated = (bitwise_crc(data) >> 15 | bitwise_crc(data) << 17) & 0xFFFFFFFF
    assert masked_crc32c(data) == (rotated + 0xA282EAD8) % 2**32

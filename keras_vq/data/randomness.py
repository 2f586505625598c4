"""Random numbers that follow from (seed, position) and from nothing else.

tf.data runs functions on many threads, so a generator with a state gives
results that depend on timing. Here every number is a hash of the seed, a
stream (what the number is for) and the example's position in the endless
stream of examples. The hash is the finalizer of SplitMix64, in integer
arithmetic: the same on every machine and in every NumPy version, which
`numpy.random.Generator` does not promise.

Reference:
    Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014, section 3.
"""

import numpy as np

# One stream a use, so that a flip never tells where the crop will be.
SHUFFLE, FLIP, CROP_Y, CROP_X, AUGMENT = range(1, 6)

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(values):
    values = np.atleast_1d(np.asarray(values, np.uint64))
    values = (values ^ (values >> np.uint64(30))) * np.uint64(
        0xBF58476D1CE4E5B9
    )
    values = (values ^ (values >> np.uint64(27))) * np.uint64(
        0x94D049BB133111EB
    )
    return values ^ (values >> np.uint64(31))


def hashes(seed: int, stream: int, positions) -> np.ndarray:
    """Returns one uint64 for each position; distinct within a stream.

    Args:
        seed: Any integer.
        stream: What the numbers are for, one of the constants above, or a
            larger integer.
        positions: Integers >= 0, shape `(n,)`.
    """
    key = _mix([((seed & _MASK) + _GOLDEN * stream) & _MASK])
    positions = np.asarray(positions).astype(np.uint64)
    return _mix(key + positions * np.uint64(_GOLDEN))


def uniform(seed: int, stream: int, positions) -> np.ndarray:
    """Returns float64 numbers in [0, 1), one for each position."""
    bits = hashes(seed, stream, positions) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order of the examples in one epoch, int64 `(size,)`.

    The hashes are a bijection of the position, so no two are equal and
    sorting them gives one permutation, the same everywhere.
    """
    epoch_seed = int(hashes(seed, SHUFFLE, [epoch])[0])
    return np.argsort(hashes(epoch_seed, SHUFFLE, np.arange(size)))

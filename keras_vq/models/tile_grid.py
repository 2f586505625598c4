"""Where the tiles of an image lie, and how they are put together."""

import itertools

import numpy as np

# Samples along an axis. Few large ones miss what lies between them; small
# ones are nearly all border.
_SAMPLES = 4


class Axis:
    """The tiles along one axis, in codes of the coarsest level.

    Args:
        side: Integer, codes along the axis.
        size: Integer, codes of a tile.
        overlap: Integer, codes that neighbours share at least.

    Attributes:
        side: That of the argument.
        size: Codes of a tile, at most `side`.
        starts: Where each tile starts; the last one ends where the axis ends.
        bounds: Where the cores of the tiles meet, with both ends of the axis.
        ramp: Width in which neighbours are blended.
    """

    def __init__(self, side, size, overlap):
        self.side = side
        self.size = min(size, side)
        rest = side - self.size
        steps = -(-rest // (size - overlap))
        self.starts = _spread(rest, steps + 1)
        # In the middle of the overlap, which is at least the one asked for.
        meetings = [
            (a + b + self.size) // 2 for a, b in itertools.pairwise(self.starts)
        ]
        self.bounds = [0, *meetings, side]
        cores = [b - a for a, b in itertools.pairwise(self.bounds)]
        # To where a tile starts; to where the other ends is no less.
        rooms = [
            2 * (bound - start)
            for bound, start in zip(meetings, self.starts[1:], strict=True)
        ]
        # The outer quarters of the overlap are the worst of both tiles.
        self.ramp = min(overlap / 2, *cores, *rooms, side)

    def core(self, i) -> tuple:
        """Start and stop of a core, counted from the start of its tile."""
        start = self.starts[i]
        return self.bounds[i] - start, self.bounds[i + 1] - start

    def weights(self, i, scale):
        """Weights of a tile's pixels, which add up to 1 over the tiles."""
        places = np.arange(self.size * scale) + 0.5 + self.starts[i] * scale
        weights = np.ones(len(places), "float32")
        for bound, sign in ((i, 1), (i + 1, -1)):
            if 0 < bound < len(self.bounds) - 1:
                distance = sign * (places - self.bounds[bound] * scale)
                width = max(self.ramp * scale, 1)
                weights *= np.clip(distance / width + 0.5, 0, 1)
        return weights

    def samples(self) -> tuple:
        """Size, starts and cores of parts spread over the axis.

        As many positions as a tile has, or a few more.
        """
        size = max(self.size // _SAMPLES, min(self.size, 3))
        starts = _spread(self.side - size, _SAMPLES)
        # Where a part is cut, its outermost code has seen zeros instead.
        cores = [
            (int(start > 0), size - int(start + size < self.side))
            for start in starts
        ]
        return size, starts, cores


def _spread(rest, count):
    """Starts from 0 to `rest`, as evenly as integers can be."""
    return [i * rest // max(count - 1, 1) for i in range(count)]


class Grid:
    """The tiles of an image.

    A tile is a tuple of its number along each axis. Arrays have no batch
    axis; they hold `scale` pixels, or finer codes, for each coarsest code.
    Images may end within the last code; codes may not.

    Args:
        sides: Integers, sides of the image in coarsest codes.
        size: Integer, codes of a tile's side.
        overlap: Integer, codes that neighbours share at least.
        factor: Integer, pixels for each code, where images are cut. None:
            codes are.
    """

    def __init__(self, sides, size, overlap, factor=None):
        self.axes = [Axis(side, size, overlap) for side in sides]
        self.sides = tuple(sides)
        self.is_full = all(axis.size == size for axis in self.axes)
        self._factor = factor
        self.sizes = tuple(axis.size for axis in self.axes)
        self.tiles = _product(axis.starts for axis in self.axes)

    def cores(self, tiles):
        """Cores of some tiles, `(tiles, axes, 2)`."""
        cores = [
            [axis.core(i) for axis, i in zip(self.axes, tile, strict=True)]
            for tile in tiles
        ]
        return np.array(cores, "int32")

    def scale(self, array) -> int:
        """Positions of an image, or of codes, for each coarsest code."""
        # Not from an image's side, which may be no multiple of it.
        return self._factor or array.shape[0] // self.sides[0]

    def tile(self, array, tile):
        """One tile of an image or of codes."""
        starts = [a.starts[i] for a, i in zip(self.axes, tile, strict=True)]
        return _cut(array, starts, self.sizes, self.scale(array))

    def samples(self):
        """Parts spread over the image: (starts, cores, sizes of a part)."""
        sizes, starts, cores = zip(
            *(axis.samples() for axis in self.axes), strict=True
        )
        places = _product(starts)
        starts = [_select(starts, place) for place in places]
        cores = [_select(cores, place) for place in places]
        return starts, np.array(cores, "int32"), sizes

    def sample(self, array, starts, sizes):
        """One of the parts of an image or of codes."""
        return _cut(array, starts, sizes, self.scale(array))

    def canvas(self, values, dtype=None):
        """Zeros for the results of all tiles, of which `values` is one."""
        scale = values.shape[0] // self.sizes[0]
        sides = [side * scale for side in self.sides]
        rest = values.shape[len(sides) :]
        return np.zeros((*sides, *rest), dtype or values.dtype)

    def blend(self, canvas, values, tile):
        """Adds a tile with its weights."""
        scale = values.shape[0] // self.sizes[0]
        places = []
        for n, (axis, i) in enumerate(zip(self.axes, tile, strict=True)):
            weights = axis.weights(i, scale)
            shape = [1] * values.ndim
            shape[n] = -1
            values = values * weights.reshape(shape)
            start = axis.starts[i] * scale
            places.append(slice(start, start + len(weights)))
        canvas[tuple(places)] += values

    def paste(self, canvas, values, tile):
        """Puts the core of a tile in its place."""
        scale = values.shape[0] // self.sizes[0]
        targets, sources = [], []
        for axis, i in zip(self.axes, tile, strict=True):
            start, stop = (bound * scale for bound in axis.core(i))
            offset = axis.starts[i] * scale
            sources.append(slice(start, stop))
            targets.append(slice(start + offset, stop + offset))
        canvas[tuple(targets)] = values[tuple(sources)]


def _product(sequences):
    return list(itertools.product(*(range(len(s)) for s in sequences)))


def _select(sequences, numbers):
    return [s[i] for s, i in zip(sequences, numbers, strict=True)]


def _cut(array, starts, sizes, scale):
    """A part of an array. Beyond its end, the last pixels are repeated."""
    parts, pad = [], []
    for start, size, side in zip(starts, sizes, array.shape, strict=False):
        stop = min((start + size) * scale, side)
        parts.append(slice(start * scale, stop))
        pad.append((0, (start + size) * scale - stop))
    array = np.asarray(array[tuple(parts)])
    pad += [(0, 0)] * (array.ndim - len(pad))
    return np.pad(array, pad, "edge") if np.any(pad) else array

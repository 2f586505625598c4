"""What the layers that look at a whole image see when it comes in tiles.

Convolutions see a neighbourhood, so that tiles with enough of it give what
the whole image would. Group normalization and attention see everything: on a
tile they find other means, and other positions to attend to, than on the next
one, which is what makes seams. Within `tile_scope` they use what was found in
`Samples` of the whole image, or in all of its `Tiles` before.
"""

import contextlib
import contextvars

from keras import ops

_current = contextvars.ContextVar("keras_vq_tiles", default=None)


def current_tiles():
    """The `Tiles` or `Samples` being computed, or None for whole images."""
    return _current.get()


@contextlib.contextmanager
def tile_scope(tiles):
    """Layers called in here take their inputs for `tiles`."""
    token = _current.set(tiles)
    try:
        yield tiles
    finally:
        _current.reset(token)


class Samples:
    """A batch of parts of one image, taken for the whole of it.

    Each layer uses what it finds in all parts together, and hands it over in
    `found`: a dict of tensors for each call, in the order of the calls.

    Args:
        cores: Integer tensor of shape `(parts, axes, 2)`: where the core of
            each part starts and stops, counted from the start of the part.
            Only what lies in it counts as seen. In positions of the coarsest
            codes, of which a layer may have several, or a part of one.
        sizes: The sides of a part in these positions: integers, or an
            integer tensor of them.
    """

    def __init__(self, cores, sizes):
        self.found = []
        self._cores = cores
        self._sizes = sizes

    def moments(self, function, x, sides):
        """Mean and variance of the whole image.

        Args:
            function: Gives mean and variance of `x`, each of shape `(batch,
                1, channels)`; as its second argument it takes the weights of
                the positions, `(batch, 1, positions)`.
            x: Tensor of shape `(parts, positions, channels)`.
            sides: The sides of the layer's input.

        Returns:
            Two tensors of shape `(1, 1, channels)`.
        """
        core = ops.reshape(self._core(sides), (1, 1, -1))
        together = ops.reshape(x, (1, -1, x.shape[-1]))
        mean, variance = function(together, core / ops.sum(core))
        self.found.append({"mean": mean, "variance": variance})
        return mean, variance

    def attend(self, function, query, key, value, sides):
        """Attention to the whole image.

        Args:
            function: Attention of query, key and value, `(batch, positions,
                channels)` each.
            query: Tensor of shape `(parts, positions, channels)`.
            key: Tensor like `query`.
            value: Tensor like `query`.
            sides: The sides of the layer's input.

        Returns:
            Tensor like `query`.
        """
        shape = (1, -1, key.shape[-1])
        key, value = ops.reshape(key, shape), ops.reshape(value, shape)
        self.found.append({"key": key, "value": value})
        return self._attend(function, query, key, value)

    def _attend(self, function, query, key, value):
        # The parts are of one image, so that all their queries go together.
        together = ops.reshape(query, (1, -1, query.shape[-1]))
        result = function(together, key, value)
        return ops.reshape(result, ops.shape(query))

    def _core(self, sides):
        """1 within the core and 0 outside, `(parts, 1, positions)`."""
        core = ops.ones((1, 1, 1))
        for axis, side in enumerate(sides):
            # Middle of each position, in halves of a layer's position.
            places = (2 * ops.arange(side) + 1) * self._sizes[axis]
            bounds = 2 * side * self._cores[:, axis]
            inside = ops.logical_and(
                places >= bounds[:, :1], places < bounds[:, 1:]
            )
            inside = ops.cast(inside, "float32")[:, None, None, :]
            core = ops.expand_dims(core, -1) * inside
            core = ops.reshape(core, (ops.shape(inside)[0], 1, -1))
        return core


class Tiles(Samples):
    """A batch of tiles, computed with what was found before.

    The cores of an image's tiles cover it, each position once, so that what
    they find by themselves makes up the whole.

    Args:
        cores: See `Samples`.
        sizes: See `Samples`.
        known: What the layers use: a list as `Samples.found`.
        collect: Whether the layers hand over what they find in the tiles.
    """

    def __init__(self, cores, sizes, known, collect):
        super().__init__(cores, sizes)
        self._known = iter(known)
        self._collect = collect

    def moments(self, function, x, sides):
        if self._collect:
            core = self._core(sides)
            count = ops.sum(core, axis=-1, keepdims=True)
            mean, variance = function(x, core / ops.maximum(count, 1.0))
            self.found.append(
                {"mean": mean, "variance": variance, "count": count}
            )
        known = next(self._known)
        return known["mean"], known["variance"]

    def attend(self, function, query, key, value, sides):
        if self._collect:
            shape = (-1, *sides, key.shape[-1])
            self.found.append(
                {
                    "key": ops.reshape(key, shape),
                    "value": ops.reshape(value, shape),
                }
            )
        known = next(self._known)
        return self._attend(function, query, known["key"], known["value"])

"""Images of any size in bounded memory: tile by tile."""

import dataclasses
import numbers

import keras
import numpy as np
from keras import ops

from keras_vq.layers.whole_image import Samples, Tiles, tile_scope
from keras_vq.models.codes import as_levels, check_codes
from keras_vq.models.compiled import compiled, is_first, tile_signature
from keras_vq.models.tile_grid import Grid


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles.

    Tiles overlap, all have the same size, and end where the image ends: at
    its border, the networks see what they would see in the whole image.
    Codes are those of the middle of each tile; images are blended into each
    other over the middle half of the overlap.

    Convolutions give the same result as for the whole image, once a quarter
    of the overlap covers what they see. The group normalizations and
    attentions of this package see the whole image: means and variances of a
    tile by itself would leave seams. So 16 small samples spread over the
    image are looked at first, together, and all tiles use what these layers
    find there: the same everywhere. With every pass more, they use what the
    pass before has found in all tiles, which in the end is what they would
    find in the whole image.

    Args:
        tile_size: Integer, pixels of each side of a tile, a multiple of the
            model's `downsample_factor`. Memory grows with its square. Sides
            of an image that are shorter are not cut.
        overlap: Integer, pixels that neighbours share at least, at most half
            of `tile_size`; rounded up to a multiple of the
            `downsample_factor`. Defaults to a quarter of `tile_size`.
        passes: Integer, how many times the networks go through all tiles.
            Networks that are made of convolutions alone need one.
        batch_size: Integer, tiles that are computed at a time.

    Raises:
        ValueError: If the sizes do not fit each other.

    Example:
    ```python
    plan = keras_vq.models.Tiling(512, overlap=192, passes=2)
    codes = model.encode(images, tiling=plan)
    images = model.decode(codes, tiling=plan)
    ```
    """

    tile_size: int = 512
    overlap: int | None = None
    passes: int = 1
    batch_size: int = 1

    def __post_init__(self):
        for name in ("tile_size", "passes", "batch_size"):
            value = getattr(self, name)
            if not _is_integer(value) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. "
                    f"Received: {name}={value!r}"
                )
        overlap = self.overlap
        if overlap is None:
            return
        if not _is_integer(overlap) or overlap < 0:
            raise ValueError(
                "`overlap` must be an integer, 0 or more. "
                f"Received: overlap={overlap!r}"
            )
        if 2 * overlap > self.tile_size:
            raise ValueError(
                "`overlap` must be at most half of `tile_size`, such as "
                f"overlap={self.tile_size // 4}. "
                f"Received: tile_size={self.tile_size}, overlap={overlap}"
            )

    def in_codes(self, factor: int) -> tuple:
        """Size and overlap of tiles in codes of `factor` pixels.

        Raises:
            ValueError: If `factor` does not divide the size.
        """
        size, rest = divmod(self.tile_size, factor)
        if rest:
            raise ValueError(
                "`tile_size` must be a multiple of the model's "
                f"downsample_factor, {factor}, such as "
                f"{(size + 1) * factor}. Received: tile_size={self.tile_size}"
            )
        if self.overlap is None:
            return size, size // 4
        return size, min(-(-self.overlap // factor), size // 2)


def encode(model, images, tiling):
    """Codes of images of any size; see `VQAutoencoder.encode`.

    Args:
        model: A `keras_vq.models.VQAutoencoder`.
        images: As `encode` takes them. A memory-mapped NumPy array is read
            tile by tile.
        tiling: A `Tiling`, or its `tile_size`.

    Returns:
        What `encode` returns, as NumPy arrays.
    """
    tiling = _tiling(tiling)
    images = _as_numpy(images)
    model._check_images(images)
    factor = model.downsample_factor
    sides = [-(-side // factor) for side in images.shape[1:-1]]
    grid = Grid(sides, *tiling.in_codes(factor), factor)
    return _run(model, "encode", images, grid, tiling)


def decode(model, codes, tiling):
    """Images of codes of any size; see `VQAutoencoder.decode`.

    Args:
        model: A `keras_vq.models.VQAutoencoder`.
        codes: As `decode` takes them.
        tiling: A `Tiling`, or its `tile_size`.

    Returns:
        What `decode` returns, as a float32 NumPy array.
    """
    tiling = _tiling(tiling)
    codes = keras.tree.map_structure(_as_numpy, codes)
    # Compiled functions cannot look at values.
    check_codes(model, codes)
    sides = as_levels(codes)[0].shape[1 : model._image_rank - 1]
    grid = Grid(sides, *tiling.in_codes(model.downsample_factor))
    return _run(model, "decode", codes, grid, tiling)


def reconstruct(model, images, tiling):
    """Images as the model gives them back; sizes stay.

    Args:
        model: A `keras_vq.models.VQAutoencoder`.
        images: As `encode` takes them.
        tiling: A `Tiling`, or its `tile_size`.

    Returns:
        float32 NumPy array, like `images`.
    """
    decoded = decode(model, encode(model, images, tiling), tiling)
    return decoded[(slice(None), *map(slice, images.shape[1:-1]))]


def _tiling(tiling) -> Tiling:
    if isinstance(tiling, Tiling):
        return tiling
    if _is_integer(tiling):
        return Tiling(tiling)
    raise ValueError(
        "`tiling` must be a keras_vq.models.Tiling, or the size of a tile in "
        f"pixels, such as 512. Received: tiling={tiling!r}"
    )


def _is_integer(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _as_numpy(array):
    # Not `np.asarray`: some backends' tensors are on another device.
    if isinstance(array, np.ndarray) or not hasattr(array, "dtype"):
        return np.asanyarray(array)
    return ops.convert_to_numpy(array)


# The passes


def _run(model, method, inputs, grid, tiling):
    """`model.encode` or `.decode`, tile by tile, image by image."""
    function = _compiled(model, method, grid)
    results = [
        _run_image(
            function,
            keras.tree.map_structure(lambda x, i=i: x[i], inputs),
            grid,
            tiling,
        )
        for i in range(len(keras.tree.flatten(inputs)[0]))
    ]
    return keras.tree.map_structure(
        # A single image is large: no copy of it.
        lambda *x: np.stack(x) if len(x) > 1 else x[0][None],
        *results,
    )


def _run_image(function, image, grid, tiling):
    known = []
    if len(grid.tiles) > 1:
        starts, cores, sizes = grid.samples()
        parts = _batch(image, lambda x, s: grid.sample(x, s, sizes), starts)
        known = function("samples", parts, cores, sizes)[1]
    if known:
        for _ in range(tiling.passes - 1):
            known = _collect(function, image, grid, tiling, known)
    return _compute(function, image, grid, tiling, known)


def _compute(function, image, grid, tiling, known):
    """The pass that gives the result."""
    canvases = None
    for tiles, cores, parts in _batches(image, grid, tiling):
        outputs, _ = function("tiles", parts, cores, grid.sizes, known)
        outputs = keras.tree.map_structure(_as_numpy, outputs)
        if canvases is None:
            canvases = keras.tree.map_structure(
                lambda x: grid.canvas(x[0], _canvas_dtype(x)), outputs
            )
        for i, tile in enumerate(tiles):
            keras.tree.map_structure(
                lambda canvas, x, i=i, tile=tile: _put(
                    grid, canvas, x[i], tile
                ),
                canvases,
                outputs,
            )
    return canvases


def _put(grid, canvas, values, tile):
    # Codes are numbers without an order: nothing lies between two of them.
    is_image = np.issubdtype(canvas.dtype, np.floating)
    put = grid.blend if is_image else grid.paste
    put(canvas, values, tile)


def _canvas_dtype(outputs):
    # Half precision is too coarse to add up, and to NumPy bfloat16 no float.
    dtype = keras.backend.standardize_dtype(outputs.dtype)
    return "float32" if keras.backend.is_float_dtype(dtype) else dtype


def _batches(image, grid, tiling):
    """Batches of one size: (tiles, their cores, their parts of the image)."""
    size = min(tiling.batch_size, len(grid.tiles))
    for start in range(0, len(grid.tiles), size):
        tiles = grid.tiles[start : start + size]
        # The last one is filled up: backends prepare kernels for each size.
        filled = tiles + tiles[-1:] * (size - len(tiles))
        yield tiles, grid.cores(filled), _batch(image, grid.tile, filled)


def _batch(image, function, places):
    return keras.tree.map_structure(
        lambda x: np.stack([function(x, place) for place in places]), image
    )


# What layers find in the whole image


def _collect(function, image, grid, tiling, known):
    """A pass that only looks: what the layers find in all tiles."""
    layers = [[] for _ in known]
    for tiles, cores, parts in _batches(image, grid, tiling):
        _, found = function("finds", parts, cores, grid.sizes, known)
        for layer, state in zip(layers, found, strict=True):
            state = {name: _as_numpy(x) for name, x in state.items()}
            for i, tile in enumerate(tiles):
                layer.append((tile, {k: x[i] for k, x in state.items()}))
    return [_merged(grid, states) for states in layers]


def _merged(grid, states):
    if "mean" in states[0][1]:
        merged = _merged_moments([state for _, state in states])
    else:
        merged = {
            name: _merged_vectors(grid, [(t, s[name]) for t, s in states])
            for name in ("key", "value")
        }
    return {k: ops.convert_to_tensor(x[None]) for k, x in merged.items()}


def _merged_moments(states):
    counts, means, variances = (
        np.stack([state[name] for state in states]).astype("float64")
        for name in ("count", "mean", "variance")
    )
    shares = counts / counts.sum(axis=0)
    mean = (shares * means).sum(axis=0)
    variance = (shares * (variances + (means - mean) ** 2)).sum(axis=0)
    return {
        "mean": mean.astype("float32"),
        "variance": variance.astype("float32"),
    }


def _merged_vectors(grid, states):
    canvas = grid.canvas(states[0][1])
    for tile, vectors in states:
        grid.paste(canvas, vectors, tile)
    return canvas.reshape((-1, canvas.shape[-1]))


# The functions of tiles


def _compiled(model, method, grid):
    """`_of_tiles(...)` for each of the passes, compiled.

    There is one graph for tiles of full size, whatever the size of the image.
    Images with shorter sides have those of `keras_vq.models.compiled.run`:
    one for the size that came first, one that knows no size.
    """
    fixed = grid.is_full or is_first(model, f"{method} tiles", grid.sizes)

    def function(kind, parts, cores, sizes, known=()):
        arguments = {
            "parts": parts,
            "cores": cores,
            "sizes": np.array(sizes, "int32"),
            "known": list(known),
        }
        signature = None
        if keras.backend.backend() == "tensorflow":
            signature = tile_signature(arguments, fixed)
        key = (f"{method} {kind}", str(signature))
        return compiled(
            model, key, _of_tiles(getattr(model, method), kind), signature
        )(arguments)

    return function


def _of_tiles(method, kind):
    """Function that gives what `method` gives, and what its layers found.

    Args:
        method: Function of a batch of images, or of codes.
        kind: `"samples"`, which stand for the whole image, or for tiles what
            is wanted of them: `"tiles"`, or `"finds"`.
    """

    def function(arguments):
        inputs, known = arguments["parts"], arguments["known"]
        cores = ops.convert_to_tensor(arguments["cores"])
        sizes = ops.convert_to_tensor(arguments["sizes"])
        if kind == "samples":
            tiles = Samples(cores, sizes)
        elif known:
            tiles = Tiles(cores, sizes, known, collect=kind == "finds")
        else:
            return method(inputs), []
        with tile_scope(tiles):
            outputs = method(inputs)
        # Where only the finds are wanted, the rest is not even computed.
        return (outputs if kind == "tiles" else None), tiles.found

    return function

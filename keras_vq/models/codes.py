"""Maps of code indices: one, or a list over the levels, coarse to fine."""

import numpy as np
from keras import ops

from keras_vq.layers.quantizers import HierarchicalQuantizer
from keras_vq.layers.quantizers.vectors import check_indices


def as_levels(codes) -> list:
    """The maps of codes of all levels, also where there is one map."""
    return list(codes) if isinstance(codes, (list, tuple)) else [codes]


def level_names(name: str, levels: int) -> list:
    """Names of the same thing of each level, as they stand in logs.

    Args:
        name: Name where there is one level.
        levels: Integer, number of levels.
    """
    if levels == 1:
        return [name]
    return [f"{name}_level_{i + 1}" for i in range(levels)]


def complete(model, codes, levels: int | None):
    """Codes of all levels, where those of the coarsest may be enough.

    Args:
        model: A `VQAutoencoder`.
        codes: As `decode` takes them.
        levels: Integer, how many of the coarsest levels to go by, or None for
            all.

    Returns:
        The codes; every finer position has its level's most frequent code.

    Raises:
        ValueError: If the model has not so many levels, or the codes have
            another number.
    """
    quantizers = model.quantizer.levels()
    if levels is None:
        wanted = len(quantizers)
    elif isinstance(levels, int) and 1 <= levels <= len(quantizers):
        wanted = levels
    else:
        raise ValueError(
            f"`levels` must be an integer from 1 to {len(quantizers)}, the "
            f"levels of the model. Received: levels={levels!r}"
        )
    if not is_hierarchical(model):
        return codes
    codes = as_levels(codes)
    if len(codes) != len(quantizers):
        _check_count(codes, wanted)
    codes = codes[:wanted]
    for level in range(wanted, len(quantizers)):
        codes.append(_most_frequent(model, codes[0], level))
    return codes


def _check_count(codes: list, wanted: int):
    if len(codes) != wanted:
        raise ValueError(
            f"Codes are a list of {wanted} maps, one for each level, the "
            f"coarsest first, as `encode` gives them. Received: {len(codes)}"
        )


def is_hierarchical(model) -> bool:
    """Whether the codes of a model are a list over its levels."""
    return isinstance(model.quantizer, HierarchicalQuantizer)


def of_shapes(model, function):
    """`function` of the shape of the codes, or of each in a list of them.

    Args:
        model: A `VQAutoencoder`.
        function: Callable of a shape, with None for sizes.
    """
    rank = model._image_rank
    results = [
        function(level.indices_shape(rank))
        for level in model.quantizer.levels()
    ]
    return results if is_hierarchical(model) else results[0]


def _most_frequent(model, coarsest, level: int):
    """A map of one level that says as little as possible."""
    coarsest = ops.convert_to_tensor(coarsest)
    scale = model.level_factors[0] // model.level_factors[level]
    sides = ops.shape(coarsest)[1 : model._image_rank - 1]
    shape = (ops.shape(coarsest)[0], *[scale * side for side in sides])
    code = model.quantizer.levels()[level].most_frequent_code()
    codes = ops.broadcast_to(code, shape)
    return codes


def check_codes(model, codes):
    """Raises ValueError if `codes` are none of the model.

    Args:
        model: A `VQAutoencoder`.
        codes: Array or tensor, or a list over the levels, as `complete`
            returns them.
    """
    rank = model._image_rank
    levels, quantizers = as_levels(codes), model.quantizer.levels()
    _check_count(levels, len(quantizers))
    for level, quantizer in zip(levels, quantizers, strict=True):
        axes = len(quantizer.indices_shape(rank))
        if len(level.shape) != axes or 0 in level.shape:
            raise ValueError(
                f"Codes are integers of {axes} axes, as `encode` gives them, "
                "the batch first. Received: shape "
                f"{tuple(level.shape)}"
            )
    coarsest = tuple(levels[0].shape[: rank - 1])
    for level, factor in zip(levels, model.level_factors, strict=True):
        scale = model.level_factors[0] // factor
        # Sizes may be unknown in a graph.
        want = (coarsest[0], *[side and scale * side for side in coarsest[1:]])
        got = tuple(level.shape[: rank - 1])
        if any(
            None not in pair and pair[0] != pair[1]
            for pair in zip(want, got, strict=True)
        ):
            raise ValueError(
                "The maps of codes of an image have sizes of "
                f"{_scales(model)}, the coarsest first. Received: shapes "
                f"{[tuple(x.shape) for x in levels]}"
            )
    # A compiled function cannot look at values.
    for level, quantizer in zip(levels, quantizers, strict=True):
        check_indices(level, quantizer.codebook_size)


def _scales(model) -> str:
    scales = [model.level_factors[0] // f for f in model.level_factors]
    return " : ".join(str(scale) for scale in scales)


def bits_per_level(model, height: int, width: int) -> list:
    """Bits that the codes of one image take without coding, by level."""
    factor = model.downsample_factor
    bits = []
    for level, own in zip(
        model.quantizer.levels(), model.level_factors, strict=True
    ):
        sides = [
            -(-side // factor) * (factor // own) for side in (height, width)
        ]
        bits.append(int(np.prod(sides)) * level.bits_per_position)
    return bits

"""The micro-batches of a batch, and sums of what they give.

Every part counts by its share of the images, and may have none: at the end of
an epoch a micro-batch, or a replica, can be left without.
"""

import keras
from keras import ops


def share_of(part, whole):
    """Which fraction of the images of `whole` those of `part` are."""
    if part is whole:
        return 1.0
    count = ops.cast(ops.shape(whole)[0], "float32")
    part_count = ops.cast(ops.shape(part)[0], "float32")
    return part_count / ops.maximum(count, 1.0)


def split(images, parts: int) -> list:
    """Micro-batches whose sizes differ by one at most."""
    if parts == 1:
        return [images]
    count = ops.shape(images)[0]
    bounds = [count * i // parts for i in range(parts + 1)]
    return [
        images[start:end]
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def mean_of_terms(results, parts, images):
    """Means of the loss terms over all images of the parts."""
    if len(results) == 1:
        return results[0]["losses"]
    terms = None
    for result, part in zip(results, parts, strict=True):
        share = share_of(part, images)
        weighted = {name: t * share for name, t in result["losses"].items()}
        terms = add(terms, weighted)
    return terms


def add(total, values):
    """Sum of two like structures; None, no gradient, is a zero."""
    if total is None:
        return values
    flat = [
        b if a is None else a if b is None else a + b
        for a, b in zip(
            keras.tree.flatten(total), keras.tree.flatten(values), strict=True
        )
    ]
    return keras.tree.pack_sequence_as(total, flat)


def whole(results) -> dict:
    """Reconstruction and indices of the whole batch, from those of its parts.

    Args:
        results: List of what the model says of each part.
    """
    return {
        name: keras.tree.map_structure(
            _concatenated, *[result[name] for result in results]
        )
        for name in ("reconstruction", "indices")
    }


def _concatenated(*tensors):
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, 0)

"""Revival of dead codes.

Codes that no latent is near get no update and stay unused for ever ("index
collapse"). They are moved onto latents of the current batch instead. The
latents travel in the quantizer's statistics as a table of candidates: every
call fills in the rows that fall into its part of the batch and leaves zeros
elsewhere, so that the tables of all replicas and micro-batches add up to the
one that a single call on the whole batch would have made.

Reference:
    [Williams et al., 2020](https://arxiv.org/abs/2002.08111), section 3;
    [Dhariwal et al., 2020](https://arxiv.org/abs/2005.00341), section 3.
"""

import numpy as np
from keras import ops

from keras_vq.layers.quantizers.slots import current_slot

# At most so many codes are revived in one step. It bounds the table, which
# replicas exchange at each step.
MAX_CANDIDATES = 256


def candidate_table(vectors, valid, rows: int, seed: int) -> dict:
    """Rows of this call's latents at fixed random places of the whole batch.

    Args:
        vectors: Tensor of shape `(n, dim)`, the latents of this call.
        valid: Tensor of shape `(n,)`, 1.0 where a latent counts, or None.
        rows: Integer, rows of the table.
        seed: Integer that fixes the places.

    Returns:
        Dict of `candidates`, shape `(rows, dim)`, and `candidate_counts`,
        shape `(rows,)`, how many latents each row holds (0 or 1).
    """
    index, parts = current_slot()
    places = np.random.default_rng(seed).random(rows, dtype="float32")
    count = ops.shape(vectors)[0]
    # The batch itself is shuffled, so the places need not change.
    total = ops.cast(count * parts, "float32")
    places = ops.cast(ops.floor(places * total), "int32") - index * count
    own = ops.logical_and(places >= 0, places < count)
    # An empty part has no row 0 to read: a row of zeros stands behind it.
    places = ops.where(own, places, count)
    vectors = ops.pad(vectors, ((0, 1), (0, 0)))
    own = ops.cast(own, "float32")
    if valid is not None:
        own = own * ops.take(ops.pad(valid, ((0, 1),)), places, axis=0)
    return {
        "candidates": ops.where(
            own[:, None] > 0, ops.take(vectors, places, axis=0), 0.0
        ),
        "candidate_counts": own,
    }


def revive(values, dead, statistics: dict, step):
    """Moves dead rows of a codebook onto candidates.

    Args:
        values: Tensor of shape `(codebook_size, dim)`.
        dead: Boolean tensor of shape `(codebook_size,)`.
        statistics: Dict as `candidate_table` returns, summed over the calls.
        step: Integer tensor. Which candidates are taken follows from it, so
            that every replica takes the same.

    Returns:
        Tuple of the new `values` and a boolean tensor of shape
        `(codebook_size,)`, which rows were moved.
    """
    # Calls of unequal size may both have filled a row, or neither.
    usable = ops.cast(statistics["candidate_counts"] == 1.0, "int32")
    available = ops.sum(usable)
    order = ops.argsort(1 - usable)
    rank = ops.cumsum(ops.cast(dead, "int32")) - 1
    moved = ops.logical_and(dead, rank < available)
    # A different one of the candidates comes first at each step.
    offset = ops.cast(step, "int32") * 31 + rank
    choice = ops.mod(offset, ops.maximum(available, 1))
    rows = ops.take(order, choice, axis=0)
    rows = ops.take(statistics["candidates"], rows, axis=0)
    return ops.where(moved[:, None], rows, values), moved

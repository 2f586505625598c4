"""The one place that finds the nearest code of a codebook."""

import keras
from keras import ops

# Distances held at a time: 2**22 float32 are 16 MiB. That leaves the search
# about as fast as one whole matrix product and bounds its memory for any batch
# and codebook; from 40 MiB on TensorFlow's allocator held ten times more.
_MAX_DISTANCES = 2**22
# Codes among them. A product with all of 16,384 codes would leave room for few
# vectors, and would prepare the codebook anew for these few, which takes longer
# than the product itself.
_MAX_CODES = 2**11
# Larger codebooks have larger blocks, so that graphs stay small.
_MAX_BLOCKS = 16


def nearest_code(vectors, codebook):
    """Index of the code at the smallest Euclidean distance of each vector.

    Works in float32 whatever the dtype of the inputs. Of several codes at the
    same distance the one with the lowest index is taken. No gradient flows
    through the result.

    Args:
        vectors: Tensor of shape `(n, dim)`.
        codebook: Tensor of shape `(codebook_size, dim)`.

    Returns:
        int32 tensor of shape `(n,)`, values in `[0, codebook_size)`.

    Example:
    >>> codebook = [[0.0, 0.0], [1.0, 1.0]]
    >>> nearest_code([[0.9, 0.8], [0.1, -0.2]], codebook)
    [1, 0]
    """
    vectors = ops.stop_gradient(ops.cast(vectors, "float32"))
    codebook = ops.stop_gradient(ops.cast(codebook, "float32"))
    block = max(_MAX_CODES, -(-codebook.shape[0] // _MAX_BLOCKS))
    block = min(block, codebook.shape[0])
    search = _search_of_blocks(codebook, block)
    rows = max(1, _MAX_DISTANCES // block)
    count = vectors.shape[0]
    # JAX finds shapes with sizes that are symbols, and cannot be compared.
    known = isinstance(count, int)
    if count is not None and (not known or count <= rows):
        return search(vectors)
    return _search_in_chunks(search, vectors, rows)


def _search_of_blocks(codebook, block):
    """Function of vectors that goes through the codes block by block."""
    # |z - e|^2 = |z|^2 - 2 z.e + |e|^2, where |z|^2 is the same for all codes
    # and can go; TensorFlow adds the rest within the matrix product.
    blocks = []
    for start in range(0, codebook.shape[0], block):
        codes = codebook[start : start + block]
        norms = ops.sum(ops.square(codes), axis=1)
        blocks.append((start, ops.transpose(-2.0 * codes), norms))

    def search(vectors):
        nearest = smallest = None
        for start, weights, norms in blocks:
            distances = ops.add(ops.matmul(vectors, weights), norms)
            indices = _argmin(distances)
            if len(blocks) == 1:
                return indices
            distance = _at(distances, indices)
            if nearest is None:
                nearest, smallest = indices, distance
                continue
            # Not where they are equal: the lower index stays.
            nearer = distance < smallest
            nearest = ops.where(nearer, indices + start, nearest)
            smallest = ops.where(nearer, distance, smallest)
        return nearest

    return search


def _search_in_chunks(search, vectors, rows):
    count = ops.shape(vectors)[0]
    if isinstance(count, int):
        chunks = -(-count // rows)
    else:
        # A batch of unknown size may be smaller than a chunk, or empty.
        rows = ops.minimum(rows, count)
        chunks = ops.maximum((count - 1) // ops.maximum(rows, 1) + 1, 1)
    # The last chunk overlaps the one before where the count does not divide:
    # padding would copy all vectors.
    starts = ops.minimum(ops.arange(chunks) * rows, count - rows)
    shape = (rows, vectors.shape[1])
    indices = _map(
        lambda start: search(ops.slice(vectors, (start, 0), shape)), starts
    )
    indices = ops.reshape(indices, (-1,))
    rest = count - (chunks - 1) * rows
    return ops.concatenate(
        [indices[: (chunks - 1) * rows], indices[chunks * rows - rest :]]
    )


def _map(function, chunks):
    if keras.backend.backend() != "tensorflow":
        return ops.map(function, chunks)
    import tensorflow as tf

    # One chunk at a time: running several at once would undo the bound.
    return tf.map_fn(
        function,
        chunks,
        fn_output_signature=tf.int32,
        parallel_iterations=1,
    )


def _argmin(distances):
    if keras.backend.backend() != "tensorflow":
        return ops.cast(ops.argmin(distances, axis=1), "int32")
    import tensorflow as tf

    # `keras.ops.argmin` on TensorFlow handles -0.0 by bit operations that make
    # it 11 times slower and that neither ONNX nor LiteRT know.
    return tf.argmin(distances, axis=1, output_type=tf.int32)


def _at(distances, indices):
    """The distance at the index of each row."""
    if keras.backend.backend() != "tensorflow":
        indices = ops.expand_dims(indices, 1)
        return ops.squeeze(ops.take_along_axis(distances, indices, 1), 1)
    import tensorflow as tf

    return tf.gather(distances, indices, axis=1, batch_dims=1)

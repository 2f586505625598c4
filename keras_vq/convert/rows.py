"""Rows of the tables of names: a tensor of a file, a variable of a model.

A variable is named by the way to it: attributes of the model and of its
layers, names of the layers of a functional model, and numbers, which count
the layers of a functional model that have weights, or the elements of a list.
`encoder/0/kernel` is the kernel of the encoder's first layer with weights.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_vq.convert.errors import LayoutError


def _same(array):
    return array


def image_kernel(array: np.ndarray) -> np.ndarray:
    """(out, in, height, width), or (in, out, ...) of transposed ones."""
    return array.transpose(2, 3, 1, 0)


def linear_kernel(array: np.ndarray) -> np.ndarray:
    """(out, in) of a linear layer, as a 1x1 convolution."""
    return array.T[None, None]


def transposed_codes(array: np.ndarray) -> np.ndarray:
    """(dim, codes)."""
    return array.T


@dataclasses.dataclass(frozen=True)
class Row:
    """What a variable of the model is filled with.

    Attributes:
        variable: The way to the variable.
        name: The tensor's name in the file; None where the file has none.
        shape: The tensor's shape in the file, or that of the variable.
        transform: What makes the variable's value of the tensor.
        value: What the variable holds where the file has nothing.
    """

    variable: str
    name: str | None
    shape: tuple
    transform: Callable[[np.ndarray], np.ndarray] = _same
    value: float = 0.0

    @property
    def root(self) -> str:
        """The model's attribute that the variable belongs to."""
        return self.variable.partition("/")[0]


def constant(path: str, shape: tuple, value: float) -> Row:
    """A variable that the file has no tensor for."""
    return Row(path, None, shape, value=value)


def conv(
    name: str,
    path: str,
    size: int,
    inputs: int,
    outputs: int,
    bias: bool = True,
    linear: bool = False,
) -> list[Row]:
    """A convolution.

    Args:
        name: What the file calls it.
        path: The way to the layer.
        size: Height and width of the kernel.
        inputs: Channels that it takes.
        outputs: Channels that it gives.
        bias: Whether the file has a bias. The layer has one.
        linear: Whether the file has a linear layer instead.
    """
    shape: tuple = (outputs, inputs, size, size)
    kernel = Row(f"{path}/kernel", f"{name}.weight", shape, image_kernel)
    if linear:
        kernel = dataclasses.replace(
            kernel, shape=(outputs, inputs), transform=linear_kernel
        )
    added = constant(f"{path}/bias", (outputs,), 0.0)
    if bias:
        added = Row(f"{path}/bias", f"{name}.bias", (outputs,))
    return [kernel, added]


def transposed_conv(
    name: str, path: str, size: int, inputs: int, outputs: int
) -> list[Row]:
    """A transposed convolution; arguments as of `conv`."""
    # The file has the channels that it takes first.
    kernel, _ = conv(name, path, size, outputs, inputs)
    return [kernel, Row(f"{path}/bias", f"{name}.bias", (outputs,))]


def norm(name: str, path: str, channels: int) -> list[Row]:
    """Scale and shift of a normalization."""
    return [
        Row(f"{path}/gamma", f"{name}.weight", (channels,)),
        Row(f"{path}/beta", f"{name}.bias", (channels,)),
    ]


def batch_norm(name: str, path: str, channels: int) -> list[Row]:
    """A batch normalization with its moving statistics."""
    return [
        *norm(name, path, channels),
        Row(f"{path}/moving_mean", f"{name}.running_mean", (channels,)),
        Row(f"{path}/moving_variance", f"{name}.running_var", (channels,)),
    ]


def codebook(name: str, path: str, codes: int, dim: int) -> list[Row]:
    """A codebook, of which nothing is known about the use of its codes."""
    return [
        Row(f"{path}/codebook", name, (codes, dim)),
        constant(f"{path}/counts", (codes,), 1.0),
        constant(f"{path}/_initialized", (), 1.0),
    ]


def averaged_codebook(
    names: tuple[str, str, str],
    path: str,
    codes: int,
    dim: int,
    transposed: bool = False,
) -> list[Row]:
    """A codebook of moving averages.

    Args:
        names: What the file calls the codes, their counts and their sums.
        path: The way to the quantizer.
        codes: Number of codes.
        dim: Length of a code.
        transposed: Whether the file has a code in each column.
    """
    shape, transform = ((codes, dim), _same)
    if transposed:
        shape, transform = ((dim, codes), transposed_codes)
    return [
        Row(f"{path}/codebook", names[0], shape, transform),
        Row(f"{path}/counts", names[1], (codes,)),
        Row(f"{path}/sums", names[2], shape, transform),
        constant(f"{path}/_initialized", (), 1.0),
    ]


def find_variable(model: keras.Model, path: str) -> Any:
    """The variable at the end of the way, or None if there is no such way."""
    node: Any = model
    for step in path.split("/"):
        node = _next(node, step)
        if node is None:
            return None
    return node if isinstance(node, keras.Variable) else None


def _next(node, step):
    is_functional = isinstance(node, keras.Model) and hasattr(
        node, "operations"
    )
    if is_functional and not step.isdecimal():
        found = [layer for layer in node.layers if layer.name == step]
        return found[0] if found else None
    if is_functional:
        node = [layer for layer in node.layers if layer.weights]
    if isinstance(node, list):
        return node[int(step)] if int(step) < len(node) else None
    return getattr(node, step, None)


def variables_of(model: keras.Model, rows: list[Row]) -> Iterator[tuple]:
    """Pairs of rows and variables, once all of them are known to fit.

    Raises:
        LayoutError: If a variable is missing or has another shape.
    """
    pairs = [(row, find_variable(model, row.variable)) for row in rows]
    wrong = []
    for row, variable in pairs:
        # One element stands for all of them: nothing is allocated.
        stand_in = np.broadcast_to(np.float32(0), row.shape)
        expected = row.transform(stand_in).shape
        if variable is None or tuple(variable.shape) != expected:
            received = None if variable is None else tuple(variable.shape)
            wrong.append(f"{row.variable}: {received} instead of {expected}")
    if wrong:
        raise LayoutError(
            f"The model does not take these weights: {len(wrong)} variables "
            f"differ: {'; '.join(wrong[:8])}. Arguments that change shapes "
            "need `load_weights=False`."
        )
    yield from pairs

"""Small files of weights as the programs of others write them."""

import numpy as np
import pytest

from tests.convert import golden_weights as golden
from tests.convert.other_names import (
    diffusers_name,
    flax_tree,
    llamagen_name,
    packed,
)

# What has the values of another: only names and formats differ.
SAME = {"diffusers": "taming", "flax": "taming"}


def arrays_of(layout):
    """Weights by name, of which the codes and images are known."""
    values = golden.read()[SAME.get(layout, layout)]
    return golden.weights_of(values["shapes"], values["seed"])


def write_safetensors(arrays, path):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file(arrays, path)
    return path


def write(layout, arrays, folder):
    """A file, or a directory, as the original's program has it."""
    if layout == "flax":
        path = folder / "flax_model.msgpack"
        path.write_bytes(packed(flax_tree(arrays)))
        return path
    if layout == "llamagen":
        arrays = {llamagen_name(k): v for k, v in arrays.items()}
    if layout == "diffusers":
        (folder / "config.json").write_text('{"_class_name": "VQModel"}')
        arrays = {diffusers_name(k, False): v for k, v in arrays.items()}
        for name, array in arrays.items():
            if "attentions" in name and array.ndim == 4:
                arrays[name] = np.ascontiguousarray(array[:, :, 0, 0])
    name = "diffusion_pytorch_model.safetensors"
    path = write_safetensors(arrays, folder / name)
    return folder if layout == "diffusers" else path

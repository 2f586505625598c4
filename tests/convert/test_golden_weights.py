"""Files of every layout without PyTorch, against what PyTorch gave."""

import golden_weights as golden
import numpy as np
import pytest
from other_names import diffusers_name, flax_tree, llamagen_name, packed

from keras_vq.convert.loading import describe
from keras_vq.models import VQAutoencoder

VALUES = golden.read()
# What has the values of another: only names and formats differ.
SAME = {"diffusers": "taming", "flax": "taming"}
ARGUMENTS = {
    "rosinality": {"inplace_relu_residual": True},
    **{
        name: {"discriminator": None, "perceptual_loss": None}
        for name in ("taming", "llamagen", "diffusers", "flax")
    },
}


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


@pytest.mark.parametrize("layout", [*VALUES, *SAME])
def test_codes_and_images(layout, tmp_path):
    values = VALUES[SAME.get(layout, layout)]
    arrays = golden.weights_of(values["shapes"], values["seed"])
    path = write(layout, arrays, tmp_path)
    assert describe(path).layout == layout
    arguments = ARGUMENTS.get(layout, {})
    model = VQAutoencoder.from_preset(path, **arguments)
    images = golden.images()
    codes = model.encode(images)
    codes = codes if isinstance(codes, list) else [codes]
    for got, want in zip(codes, values["codes"], strict=True):
        np.testing.assert_array_equal(got, want)
    want = np.array(values["images"])
    error = np.abs(np.asarray(model(images)) - want).max()
    assert error < 1e-4 * np.abs(want).max()

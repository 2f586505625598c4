"""Files of every layout without PyTorch, against what PyTorch gave."""

import golden_weights as golden
import numpy as np
import pytest

from keras_vq.convert.loading import describe
from keras_vq.models import VQAutoencoder
from tests.convert.layout_files import SAME, arrays_of, write

VALUES = golden.read()
ARGUMENTS = {
    "rosinality": {"inplace_relu_residual": True},
    **{
        name: {"discriminator": None, "perceptual_loss": None}
        for name in ("taming", "llamagen", "diffusers", "flax")
    },
}


@pytest.mark.parametrize("layout", [*VALUES, *SAME])
def test_codes_and_images(layout, tmp_path):
    values = VALUES[SAME.get(layout, layout)]
    path = write(layout, arrays_of(layout), tmp_path)
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

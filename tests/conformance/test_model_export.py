"""What every model promises as a SavedModel, without Python."""

import numpy as np
import pytest
from cases import MODELS, levels, parametrize

tf = pytest.importorskip("tensorflow", reason="SavedModel is TensorFlow's own")


# That of a VQGAN has the functions of the others, over more layers.
@parametrize(MODELS, slow_in_soak=True)
def test_exported_endpoints(case, tmp_path):
    model, factor = case.make(), case.downsample_factor
    model.export(str(tmp_path / "saved"), verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    for sides in [(2 * factor, factor), (factor + 1, 2 * factor + 3)]:
        images = tf.constant(case.images(2, *sides))
        # A graph has other kernels, which round otherwise in each layer.
        np.testing.assert_allclose(
            saved.serve(images), model(images), rtol=1e-5, atol=1e-6
        )
        codes = saved.encode(images)
        for level, want in zip(
            levels(codes), levels(model.encode(images)), strict=True
        ):
            np.testing.assert_array_equal(level, want)
        np.testing.assert_allclose(
            saved.decode(codes), model.decode(codes), rtol=1e-5, atol=1e-6
        )

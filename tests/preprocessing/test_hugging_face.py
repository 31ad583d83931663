"""Converts Hugging Face's processor files to the preprocessor's arguments and back."""

import numpy as np
import pytest

from align_keras import (
    AlignPreprocessor,
)
from align_keras.preprocessing import hugging_face


@pytest.mark.parametrize(
    ("scaling", "factor", "offset"),
    [
        ({"do_normalize": False, "rescale_offset": True, "rescale_factor": 1 / 127.5}, 2 / 255, -1),
        ({"do_normalize": False, "rescale_offset": False}, 1 / 255, 0),
        ({"rescale_offset": False, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}, 4 / 255, -2),
    ],
)
def test_pixels_are_scaled_as_the_configuration_says(scaling, factor, offset):
    base = {"size": 8, "resample": 2, "include_top": False}
    arguments = hugging_face.preprocessor_arguments({**base, **scaling})
    np.testing.assert_allclose(arguments["pixel_scale"], factor)
    np.testing.assert_allclose(arguments["pixel_offset"], offset)
    preprocessor = AlignPreprocessor(**arguments)
    written = hugging_face.preprocessor_config(preprocessor)
    again = hugging_face.preprocessor_arguments(written)
    for name in ("pixel_scale", "pixel_offset"):
        np.testing.assert_allclose(again[name], arguments[name], rtol=1e-6)

"""Tests images of five formats in packing, the training crop and an exported SavedModel."""

import struct
import zlib

import materials
import numpy as np
import tensorflow as tf
from harness import Family
from mutations import choose, damaged

from align_keras.data.preparation import encoding
from align_keras.preprocessing.decoding.faults import ImageFaultError

_SIDES = (0, 1, 255, 8_000, 20_000, 65_535, 2**31 - 1)


class Images(Family):
    """Files of one format; either every reader accepts the file, or every reader skips it."""

    share, batch, memory = 0.05, 100, 2_000.0

    def __init__(self, kind, **modes):
        self.kind, self.name, self.modes = kind, f"images: {kind}", modes

    def prepare(self, folder):
        model = materials.model(folder.parent)
        preprocessor = model.preprocessor
        # The SavedModel's functions work only while the object exists.
        self.saved = tf.saved_model.load(str(materials.saved_model(folder.parent) / "1"))
        signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64)]
        self.crop = tf.function(
            preprocessor.decode_random_crop, input_signature=signature, autograph=False
        )

    def make_case(self, rng):
        mode = choose(rng, list(self.modes))
        options = choose(rng, self.modes[mode])
        data = materials.picture(self.kind, int(rng.integers(1 << 30)), mode, **options)
        if rng.uniform() < 0.15:
            data = self.with_size(bytearray(data), rng)
        return damaged(data, rng, sound=0.15)

    def with_size(self, data, rng):
        """Returns the file with other sizes in its header, if the format stores them."""
        width, height = choose(rng, _SIDES), choose(rng, _SIDES)
        if self.kind == "PNG":
            data[16:24] = struct.pack(">II", width, height)
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        elif self.kind == "BMP":
            data[18:26] = struct.pack("<II", width, height)
        elif self.kind == "GIF":
            data[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
        elif self.kind == "JPEG" and (start := data.find(b"\xff\xc0")) > 0:
            data[start + 5 : start + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
        return bytes(data)

    def run(self, cases):
        decodes = np.array([self.decodes(data) for data in cases])
        # A crop reads only a part of a JPEG and may therefore find no fault.
        for data, decoded in zip(cases, decodes, strict=True):
            assert self.crops(data) or not decoded, "packing takes it, the training crop does not"
        found = self.saved.encode_image(tf.constant(cases))
        valid = found["valid"].numpy()
        embeddings = next(v for k, v in found.items() if k != "valid").numpy()
        assert np.isfinite(embeddings).all()
        assert (valid == decodes).all(), f"packing finds {decodes}, the SavedModel {valid}"
        return np.where(valid, "sound", "skipped").tolist()

    def decodes(self, data):
        """Returns whether packing decodes an image; the packed image must decode in training."""
        size = encoding.image_size(data)
        try:
            jpeg = encoding.to_jpeg(data)
        except ImageFaultError as error:
            assert str(error) and "\n" not in str(error)
            # The image can be decoded but is too long for a JPEG.
            return "the limit of JPEG" in str(error)
        assert size is None or min(size) > 0
        assert self.crops(jpeg), "what was packed does not decode in training"
        return True

    def crops(self, data):
        """Returns whether the training crop decodes an image."""
        try:
            pixels = self.crop(tf.constant(data), tf.constant([0, 1], tf.int64)).numpy()
        except tf.errors.InvalidArgumentError:
            return False
        assert np.isfinite(pixels).all()
        return True


_NONE = ({},)
FAMILIES = (
    Images("JPEG", RGB=({}, {"progressive": True}, {"quality": 5}), L=_NONE, CMYK=_NONE),
    Images("PNG", RGB=_NONE, RGBA=_NONE, L=_NONE, P=({}, {"bits": 2}), LA=_NONE),
    Images("GIF", P=_NONE, L=_NONE, RGBA=_NONE),
    Images("BMP", RGB=_NONE, P=_NONE, L=_NONE, **{"1": _NONE}),
    Images("WEBP", RGB=({}, {"lossless": True}), RGBA=({}, {"lossless": True})),
)

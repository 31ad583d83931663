"""Encoded images and captions to model inputs, in TensorFlow ops."""

import tensorflow as tf
import tensorflow_text as tf_text

#: Larger images count as corrupt: a PNG of a megabyte can decode to gigabytes.
MAX_PIXELS = 1 << 26
_BIG_ENDIAN = [1 << 24, 1 << 16, 1 << 8, 1]

PAD, UNKNOWN, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def read_vocabulary(path):
    """Reads a BERT ``vocab.txt``: one word piece a line, in the order of their ids.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8, or one of BERT's special pieces is missing.
    """
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"--vocabulary: no file {path}")
    with tf.io.gfile.GFile(path, "rb") as file:
        try:
            pieces = file.read().decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8; give a BERT vocab.txt") from None
    pieces = [piece.rstrip("\r") for piece in pieces]
    while pieces and not pieces[-1]:
        pieces.pop()
    missing = [piece for piece in (PAD, UNKNOWN, CLS, SEP) if piece not in pieces]
    if missing:
        raise ValueError(f"{path}: no {', '.join(missing)} in it; give a BERT vocab.txt")
    if len(set(pieces)) < len(pieces):
        twice = next(piece for index, piece in enumerate(pieces) if piece in pieces[:index])
        raise ValueError(f"{path}: {twice!r} stands twice in it; give a BERT vocab.txt")
    return pieces


class AlignPreprocessor:
    """Turns encoded images and captions into the inputs of an ``AlignBackbone``.

    Images are stretched to ``resize_size`` squared and cropped to ``image_size`` squared: at
    random, with a random flip, in training; at the centre else (paper, sec. 5: 346 and 289).
    Pixels are scaled to -1 .. 1. Captions are lower-cased, stripped of accents, cut into word
    pieces and trimmed to ``sequence_length`` with [CLS] and [SEP] (sec. 5: 64). The paper
    states neither the scaling nor the casing.

    Args:
        vocabulary: word pieces in the order of their ids.
        image_size: pixels.
        resize_size: pixels, at least ``image_size``.
        sequence_length: word pieces.

    Raises:
        ValueError: if ``resize_size`` is below ``image_size``, or ``sequence_length`` below 3.
    """

    def __init__(self, vocabulary, image_size=289, resize_size=346, sequence_length=64):
        if resize_size < image_size:
            raise ValueError(
                f"resize_size ({resize_size}) must be at least image_size ({image_size})"
            )
        if sequence_length < 3:
            raise ValueError(f"sequence_length must be at least 3, not {sequence_length}")
        self.vocabulary = list(vocabulary)
        self.image_size = image_size
        self.resize_size = resize_size
        self.sequence_length = sequence_length
        self.tokenizer = tf_text.FastBertTokenizer(
            self.vocabulary,
            token_out_type=tf.int32,
            unknown_token=UNKNOWN,
            lower_case_nfd_strip_accents=True,
            no_pretokenization=False,
        )

    def tokenize(self, captions):
        """Cuts captions into word pieces, a batch at a time (many times faster than singly).

        Args:
            captions: strings, ``(batch,)``.

        Returns:
            A dict of ``token_ids``, ``segment_ids`` (zeros) and ``padding_mask``, int32,
            ``(batch, sequence_length)``.
        """
        captions = tf.convert_to_tensor(captions, tf.string)
        pieces = self.tokenizer.tokenize(captions)[:, : self.sequence_length - 2]
        ends = [tf.fill([tf.shape(captions)[0], 1], self.vocabulary.index(p)) for p in (CLS, SEP)]
        pieces = tf.concat([ends[0], pieces, ends[1]], axis=1)
        shape = [captions.shape[0], self.sequence_length]
        token_ids = tf.ensure_shape(
            pieces.to_tensor(
                default_value=self.vocabulary.index(PAD), shape=[None, self.sequence_length]
            ),
            shape,
        )
        lengths = tf.cast(pieces.row_lengths(), tf.int32)
        padding_mask = tf.sequence_mask(lengths, self.sequence_length, dtype=tf.int32)
        return {
            "token_ids": token_ids,
            "segment_ids": tf.zeros_like(token_ids),
            "padding_mask": tf.ensure_shape(padding_mask, shape),
        }

    def decode_image(self, encoded):
        """Decodes one image and crops its centre, as in evaluation.

        Args:
            encoded: the bytes of a JPEG, PNG, GIF or BMP, a scalar string.

        Returns:
            float32, ``(image_size, image_size, 3)``, -1 .. 1.

        Raises:
            tf.errors.InvalidArgumentError: if the bytes are no image.
        """
        offset = (self.resize_size - self.image_size) // 2
        return self._decode_crop(encoded, tf.constant([offset, offset]))

    def decode_and_augment_image(self, encoded, seed):
        """Decodes one image, crops at random and flips it every other time, as in training.

        Args:
            encoded: the bytes of a JPEG, PNG, GIF or BMP, a scalar string.
            seed: two integers, which alone decide crop and flip.

        Returns:
            float32, ``(image_size, image_size, 3)``, -1 .. 1.

        Raises:
            tf.errors.InvalidArgumentError: if the bytes are no image.
        """
        draws = tf.random.stateless_uniform([3], seed)
        span = tf.cast(self.resize_size - self.image_size + 1, tf.float32)
        image = self._decode_crop(encoded, tf.cast(draws[:2] * span, tf.int32))
        return tf.where(draws[2] < 0.5, tf.reverse(image, axis=[1]), image)

    def _decode_crop(self, encoded, offset):
        """Cuts out the window at ``offset`` (y, x) of the image stretched to ``resize_size``.

        The window is mapped back onto the file's own pixels: a JPEG is decoded there alone,
        and one resize serves both steps.
        """
        with tf.control_dependencies([_check_pixels(encoded)]):
            encoded = tf.identity(encoded)
        is_jpeg = tf.strings.substr(encoded, 0, 2) == b"\xff\xd8"
        size = float(self.resize_size)

        def window(height, width):
            scale = tf.stack([tf.cast(height, tf.float32), tf.cast(width, tf.float32)]) / size
            start = tf.cast(tf.cast(offset, tf.float32) * scale, tf.int32)
            extent = tf.cast(tf.math.ceil(float(self.image_size) * scale), tf.int32)
            extent = tf.minimum(extent, tf.stack([height, width]) - start)
            return tf.concat([start, extent], axis=0)

        def jpeg():
            shape = tf.image.extract_jpeg_shape(encoded)
            return tf.image.decode_and_crop_jpeg(encoded, window(shape[0], shape[1]), channels=3)

        def other():
            image = tf.image.decode_image(encoded, channels=3, expand_animations=False)
            shape = tf.shape(image)
            y, x, height, width = tf.unstack(window(shape[0], shape[1]))
            return image[y : y + height, x : x + width]

        pixels = tf.cond(is_jpeg, jpeg, other)
        pixels = tf.image.resize(pixels, [self.image_size, self.image_size])
        pixels = tf.ensure_shape(pixels, [self.image_size, self.image_size, 3])
        return pixels / 127.5 - 1.0


def _check_pixels(encoded):
    """Raises InvalidArgumentError, before decoding, if the header names too many pixels."""

    def number(start, weights):
        octets = tf.io.decode_raw(tf.strings.substr(encoded, start, len(weights)), tf.uint8)
        return tf.reduce_sum(tf.cast(octets, tf.int64) * weights)

    def jpeg():
        return tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64))

    pixels = tf.case(
        [
            (tf.strings.substr(encoded, 0, 2) == b"\xff\xd8", jpeg),
            (
                tf.strings.substr(encoded, 0, 4) == b"\x89PNG",
                lambda: number(16, _BIG_ENDIAN) * number(20, _BIG_ENDIAN),
            ),
            (
                tf.strings.substr(encoded, 0, 3) == b"GIF",
                lambda: number(6, [1, 256]) * number(8, [1, 256]),
            ),
        ],
        # A BMP is as long as it is large.
        default=lambda: tf.constant(0, tf.int64),
    )
    return tf.debugging.assert_less_equal(
        pixels, tf.constant(MAX_PIXELS, tf.int64), "the image has too many pixels"
    )

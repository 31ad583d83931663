import numpy as np
import tensorflow as tf

from align_keras.export import folding


def test_folded_batch_norm_is_exact_to_rounding(tiny_model, tmp_path):
    folded = folding.fold_batch_norm(tiny_model.backbone)
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(
        folded.encode_images(pixels), tiny_model.backbone.encode_images(pixels), atol=1e-6
    )

    def ops(backbone):
        function = tf.function(backbone.encode_images)
        graph = function.get_concrete_function(tf.TensorSpec([None, 16, 16, 3])).graph
        return [op.type for op in graph.get_operations()]

    assert any("FusedBatchNorm" in op for op in ops(tiny_model.backbone))
    assert not any("BatchNorm" in op for op in ops(folded))

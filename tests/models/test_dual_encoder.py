import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import Lamb, keras_internals


def test_eight_pairs_are_learnt_to_recall_1(build_tiny, batch):
    model = build_tiny()
    model.compile(keras.optimizers.AdamW(5e-3), mask_false_negatives=False)
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    history = model.fit(dataset, steps_per_epoch=80, epochs=4, verbose=0, shuffle=False)
    assert history.history["i2t_recall_at_1"][-1] == 1.0
    assert history.history["t2i_recall_at_1"][-1] == 1.0
    # The same holds in inference, where batch norm uses its moving averages.
    outputs = model.predict(tf.data.Dataset.from_tensors(batch), verbose=0)
    similarity = outputs["image_embeddings"] @ outputs["text_embeddings"].T
    for axis in (0, 1):
        np.testing.assert_array_equal(similarity.argmax(axis=axis), np.arange(8))


def test_fit_reports_every_metric_and_lamb_lowers_the_loss(build_tiny, batch):
    model = build_tiny()
    model.compile(Lamb(0.02))
    dataset = tf.data.Dataset.from_tensors(batch)
    history = model.fit(dataset, validation_data=dataset, verbose=0, shuffle=False).history
    found = {name[4:]: history.pop(name)[0] for name in list(history) if name.startswith("val_")}
    expected = model.evaluate(batch, batch_size=8, return_dict=True, verbose=0)
    assert found == pytest.approx(expected)
    assert found["loss"] != history["loss"][0]
    assert set(history) == {
        "loss",
        "loss_i2t",
        "loss_t2i",
        "i2t_recall_at_1",
        "t2i_recall_at_1",
        "temperature",
        "learning_rate",
        "gradient_norm",
        "repeated_captions",
    }
    assert history["loss"][0] == pytest.approx(
        history["loss_i2t"][0] + history["loss_t2i"][0], rel=1e-5
    )
    assert history["temperature"][0] == pytest.approx(0.2)
    assert history["learning_rate"][0] == pytest.approx(0.02)
    assert history["gradient_norm"][0] > 0
    assert history["repeated_captions"][0] == 1 / 8
    later = model.fit(
        dataset.repeat(), steps_per_epoch=15, epochs=3, verbose=0, shuffle=False
    ).history
    assert later["loss"][-1] < 0.7 * later["loss"][0]


def test_masking_false_negatives_changes_the_loss_and_needs_ids(build_tiny, batch):
    model = build_tiny()
    results = {}
    for mask in (False, True):
        model.compile(Lamb(), mask_false_negatives=mask)
        results[mask] = float(model.compute_gradients(batch)[0]["loss"])
    assert results[True] < results[False]
    without_ids = {name: value for name, value in batch.items() if "ids" not in name[-4:]}
    without_ids |= {name: batch[name] for name in ("token_ids", "segment_ids")}
    assert float(model.compute_gradients(without_ids)[0]["loss"]) == pytest.approx(
        results[False], rel=1e-5
    )


def test_every_trainable_variable_gets_a_gradient(build_tiny, batch):
    model = build_tiny()
    model.compile(Lamb())
    _, gradients = model.compute_gradients(batch)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        # The softmax ignores a bias that is added to all keys, so its gradient is 0.
        if not variable.path.endswith("key/bias"):
            assert np.abs(gradient).max() > 0, variable.path


def test_temperature_stays_above_its_floor(build_tiny, batch):
    model = build_tiny(min_temperature=0.1)
    model.compile(Lamb(0.3))
    model.log_temperature.assign(-9.0)
    model.train_step(batch)
    assert float(model.temperature) == pytest.approx(0.1)
    # It rises again if the gradient demands it.
    model.backbone.trainable = False
    temperatures = []
    for _ in range(5):
        model.train_step({**batch, "token_ids": batch["token_ids"][::-1]})
        temperatures.append(float(model.temperature))
    assert min(temperatures) >= 0.0999
    assert max(temperatures) > 0.11


def test_temperature_moves_by_the_learning_rate_under_lamb(build_tiny, batch):
    # The relative steps should be about the learning rate, whatever the trust ratio is.
    model = build_tiny()
    model.compile(Lamb(0.01))
    before = float(model.log_temperature.numpy())
    model.train_step(batch)
    assert abs(float(model.log_temperature.numpy()) - before) == pytest.approx(0.01, rel=1e-2)


def test_bad_temperatures_are_refused(build_tiny):
    with pytest.raises(ValueError, match="min_temperature <= initial_temperature"):
        build_tiny(min_temperature=0.5)


def test_a_clipping_optimizer_is_refused(build_tiny):
    with pytest.raises(ValueError, match="give global_clipnorm to compile"):
        build_tiny().compile(keras.optimizers.AdamW(global_clipnorm=1.0))


def test_predict_on_a_dataset_matches_a_call(build_tiny, batch):
    model = build_tiny(dropout=0.5)
    outputs = model.predict(tf.data.Dataset.from_tensors(batch).repeat(2), verbose=0)
    called = model(batch)
    for name in ("image_embeddings", "text_embeddings"):
        np.testing.assert_allclose(outputs[name][8:], called[name], atol=1e-5)
    np.testing.assert_array_equal(outputs["image_ids"], np.tile(batch["image_ids"], 2))
    similarity = called["image_embeddings"] @ tf.transpose(called["text_embeddings"])
    np.testing.assert_allclose(called["logits"], similarity / 0.2, rtol=1e-4, atol=1e-5)


def test_saved_models_embed_the_same(build_tiny, batch, tmp_path):
    model = build_tiny(synchronized=True)
    model.compile(keras.optimizers.AdamW(1e-2))
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(3), verbose=0, shuffle=False)
    expected = model(batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    norms = [
        layer
        for layer in keras_internals.layers_of(loaded.backbone.image_encoder)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert norms
    assert all(layer.synchronized for layer in norms)
    model.save_weights(tmp_path / "model.weights.h5")
    from_weights = build_tiny(synchronized=True)
    from_weights.load_weights(tmp_path / "model.weights.h5")
    for other in (loaded, from_weights):
        for name, value in other(batch).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5)

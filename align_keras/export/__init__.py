"""Exports models for use without this package: SavedModel, ONNX, LiteRT. No training."""

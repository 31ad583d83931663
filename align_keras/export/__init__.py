"""Models for use without this package: SavedModel, ONNX, LiteRT. Nothing is trained here."""

"""Decodes an image to upright pixels on white, always the same way, with TensorFlow ops alone.

Resizing and cropping are in ``preprocessing.images``.
"""

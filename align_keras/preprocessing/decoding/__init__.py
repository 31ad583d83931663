"""From an encoded image to upright pixels on white: one way for all, in TensorFlow ops alone.

Resizing and cropping are in ``preprocessing.images``.
"""

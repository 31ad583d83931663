"""Layers and functions that the towers are made of. No tower, no training step."""

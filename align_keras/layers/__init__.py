"""Layers and functions that the towers consist of. No towers, no training step."""

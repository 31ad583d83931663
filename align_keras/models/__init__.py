"""Towers, backbone, training step, presets and their conversion. No data, no evaluation."""

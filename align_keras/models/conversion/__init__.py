"""Reads and writes checkpoints in the layouts of other libraries."""

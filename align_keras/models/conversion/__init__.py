"""Checkpoints in other libraries' layouts, in and out."""

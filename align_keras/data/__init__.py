"""Builds batches from shards of image-text pairs, and inspects shards."""

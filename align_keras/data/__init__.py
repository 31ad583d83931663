"""From shards of image-text pairs to batches, and what looks into shards."""

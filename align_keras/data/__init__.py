"""From shards of image-text pairs to batches."""

"""An index of images, its queries and its web page. Embedding models are elsewhere."""

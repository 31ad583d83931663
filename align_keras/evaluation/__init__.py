"""How good the embeddings are."""

"""Measures how good the embeddings of a model are."""

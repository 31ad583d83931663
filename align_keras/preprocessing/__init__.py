"""Converts images and captions to model inputs. Does not read them from files."""

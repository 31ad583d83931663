"""The tasks of ``evaluate.py``: each opens its data and then measures a model on it.

The metrics, and evaluation during training, are in ``evaluation``.
"""

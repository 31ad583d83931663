"""The tasks of ``evaluate.py``: each opens its data, then measures a model on them.

The metrics, and evaluation during training, are in ``evaluation``.
"""

"""The tasks of ``evaluate.py``: each opens its data, then measures a model on them.

The measures are in ``evaluation``, how a run evaluates while it trains too.
"""

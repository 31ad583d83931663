"""What a run is: settings, directory, checkpoints, log, report, the end of a command.

Nothing here defines a model, a loss or a metric.
"""

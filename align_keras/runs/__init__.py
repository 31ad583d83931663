"""Everything about a run: settings, directory, checkpoints, log, report, messages of commands.

Models, losses and metrics are defined elsewhere.
"""

"""What a run is: settings, directory, checkpoints, log, reports, a command's end."""

"""Settings of an algorithm chosen by what the logs say, or by a simulator: Optuna over the file's ``search:`` block."""

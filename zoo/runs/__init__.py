"""What every command stands on: a run's folder, its settings, training, evaluation, films."""

"""What to know about a dataset before training on it, measured, said in words and drawn."""

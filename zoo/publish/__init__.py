"""What `python -m zoo publish` is made of: which run, what is said of it, the list of the folders."""

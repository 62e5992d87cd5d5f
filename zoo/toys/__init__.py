"""Tasks of one or two dimensions on which what a method does can be seen."""

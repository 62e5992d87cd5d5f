"""The results in this repository as a static site."""

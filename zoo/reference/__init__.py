"""The API reference: Sphinx's settings, and what a name in a docstring means."""

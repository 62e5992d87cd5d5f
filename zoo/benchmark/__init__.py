"""Algorithms × datasets × seeds from one plan, and the report on them."""

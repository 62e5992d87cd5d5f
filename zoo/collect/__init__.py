"""From a recipe to a Minari dataset."""

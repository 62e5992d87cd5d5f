"""How fast updates are, beside the updates as one would first write them."""

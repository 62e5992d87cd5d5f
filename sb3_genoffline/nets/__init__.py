"""Networks: ensembles, actors, values, activations."""

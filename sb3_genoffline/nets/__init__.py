"""Networks: ensembles, actors, values, activations, and the check of hidden widths."""

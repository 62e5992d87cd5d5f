"""Generative models of behaviour and of values: plain modules and losses, without optimizers."""

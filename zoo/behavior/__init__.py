"""Behaviour policies: small TRPO actors from which the zoo's own datasets are collected."""

"""From whatever holds logged data to an ``OfflineDataset``."""

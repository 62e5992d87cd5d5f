"""From an ``OfflineDataset`` to HDF5 and Minari."""

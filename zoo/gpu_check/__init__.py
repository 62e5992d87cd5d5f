"""Whether the library does on CUDA what its tests can't ask of a CPU, and how fast."""

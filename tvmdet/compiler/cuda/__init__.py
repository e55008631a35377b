"""CUDA without a GPU: device code from nvcc, and the same code run on a CPU to check its numbers."""

"""CUDA without a GPU: code from nvcc, and the same code run on a CPU to check its numbers."""

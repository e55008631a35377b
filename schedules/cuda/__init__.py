"""Templates for CUDA GPUs."""

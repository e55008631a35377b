"""From Relax to the functions that CUDA templates and kernels compute."""

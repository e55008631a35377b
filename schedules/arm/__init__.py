"""Templates for ARM CPUs."""

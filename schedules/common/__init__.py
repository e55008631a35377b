"""Templates that serve every CPU."""

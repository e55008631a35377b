"""Templates that serve every CPU, and those whose details each family of targets settles."""

"""Schedule templates: one operator pattern per file, one folder per target family."""

if __name__ == "schedules":
    raise ImportError("import tvmdet.schedules; a second copy named 'schedules' would split its registry")

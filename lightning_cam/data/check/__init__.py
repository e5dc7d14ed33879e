"""Whether a data set is complete: what it lists, and whether every video opens."""

"""Plain float64 twins of what torch lacks, each written from the algorithm box of its paper, in numpy."""

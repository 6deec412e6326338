"""What can be found before a run starts: everything is tried on the run's own objects and put back afterwards."""

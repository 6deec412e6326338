"""One step: parameters sorted into batches, guarded against change, and run by a backend."""

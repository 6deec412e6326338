"""Runs that are made elsewhere: by any executor in the shape of ``concurrent.futures``, on Ray, or under SLURM.

A run is a pure function of what its key is a hash of, so making it twice does no harm, and nobody has to know for sure
whether a worker is dead: whatever an executor loses is asked for again.
"""

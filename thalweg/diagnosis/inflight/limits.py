"""Where a watch speaks: the limits of all detectors, each with the reason for its value.

A healthy run is noisy, and a watch looks at it hundreds of times: a limit must hold for the most extreme of all looks.
"""

#: a loss so many robust deviations above the median of the last ones is a spike
SPIKE = 6.0
#: and at least by this share of what the loss has fallen so far: near its end a run's deviations are tiny
SPIKE_SHARE = 0.5
#: losses over which median and deviation are taken, and how many there must be before one can be a spike
WINDOW, SETTLED = 128, 32
#: spikes within a window from which on the run itself is unstable
SPIKES = 3
#: the latest losses lie above the first ones by so many deviations of both: the run climbs
CLIMBED, CLIMB_OVER = 5.0, 10
#: a norm of all gradients over the median of the last ones, and over the greatest of the first ones
EXPLODED = 100.0
#: samples in a row in which a layer has gradients that are exactly zero, or none
DEAD_FOR = 5
#: relative spread of the norms of all gradients, and share of the samples within it: what is clipped has one norm
CLIPPED_SPREAD, CLIPPED_SHARE = 1e-3, 0.9
#: samples before clipping is judged
CLIPPED_AFTER = 10
#: samples in a row in which an update changes nothing of a layer that has gradients
STUCK_FOR = 3
#: share of the elements that a 16-bit update changes, below which most of it is rounded away
SWALLOWED = 0.02
#: the first samples, one of which shows steps that are too large; and those from which a run's way is reckoned
OUTSIDE_FOR, SMALL_FOR = 3, 12
#: share of a layer's entries with √v below ε, and samples in a row
EPS, EPS_FOR = 0.7, 5
#: mean cosine between −gradient and update over the last samples: an update that climbs
UPHILL, UPHILL_FOR = -0.2, 10
#: a layer's norm over what it was at first; training from scratch seldom passes 10
GROWN = 30.0
#: updates before a scheduler's count is judged, and how far its steps an update may be from one
COUNTED, DOUBLE = 20, 1.5
#: backward passes without an update, more than so many times the usual number of an update
UNSTEPPED = 20

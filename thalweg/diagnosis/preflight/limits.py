"""Where a check speaks: the limits of all checks, each with the reason for its value.

They are chosen so that healthy runs stay well inside; what depends on the kind of optimizer is in
:mod:`thalweg.diagnosis.families`.
"""

#: a mean loss over classes above this many guesses plus one: outputs of twice the usual size still pass
INITIAL_LOSS = 2.0
#: a mean squared error above this many variances of the targets: a mean ten deviations away, or outputs of that size
INITIAL_ERROR = 100.0
#: root mean square of inputs; pixels from 0 to 255 have about 100, normalized data 1
INPUT_SIZE = 30.0
#: share that dropout drops; the strongest in use are 0.5 to 0.7
DROPOUT = 0.8
#: share of the units of a ReLU that no example switches on; a fresh layer has at most a few per cent
DEAD = 0.9
#: relative size of a layer's gradient against the largest; a deep network with good initialization keeps 1e-3
VANISHED = 1e-7
#: ‖g‖ / ‖w‖ of a layer against the median layer, and at least
EXPLODED, EXPLODED_AT_LEAST = 1e4, 1e3
#: share of gradients that are zero in float16
UNDERFLOW = 0.5
#: norm of the gradient over the norm at which it is clipped, at every step
CLIPPED = 20.0
#: share of the numbers in 16-bit formats, of those with a gradient, that a step at the peak rate changes
SWALLOWED = 0.1
#: loss after the rehearsal over the loss before
RISEN, FALLEN = 1.5, 0.98
#: its highest loss, in losses before it
BURST = 20.0
#: the share of the loss that a rehearsal with a warmup takes off at least, and how many times as much as without
WARMED, BETTER = 0.5, 2.5
#: as much of a guess's loss as an untrained model has at least
UNTRAINED = 0.7
#: a layer's update ratio against the median layer of the same optimizer, beyond which it is another's step
UNEVEN = 100.0
#: share of a matrix's entries whose √v is below ε
EPS = 0.5
#: steps that an average looks back over, in lengths of the run
MEMORY = 20.0
#: decay on gains and biases: a deliberate λ (torch's default is 0.01), and what it takes off them in a run
DECAY, DECAY_IN_A_RUN = 0.05, 0.01
#: share of a matrix's first step that decay makes
DECAY_SHARE = 0.5
#: factor of the peak at which a run may end although the schedule was made to go on to zero
UNFINISHED = 0.35
#: factor of the peak below which a schedule has ended, and how much of the run may be left then
ENDED, REST = 0.01, 0.4
#: the share of the run by which a warmup must be over
WARMUP = 0.6
#: optimizer steps after which the scheduler's own count is compared, and by how much it may differ
COUNTED, OUT_OF_STEP = 5, 1.5
#: share of the targets that equal the input at another place, to call them that input shifted
SHIFTED = 0.95
#: relative change of an output that is no rounding
CHANGED = 1e-3
#: z-score above which labels fit an example's neighbour
PAIRED = 6.0

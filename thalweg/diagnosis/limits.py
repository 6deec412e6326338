"""Where a check before a run, and a detector beside it, speaks: all limits, each with the reason for its value.

They are chosen so that healthy runs stay well inside; what depends on the kind of optimizer is in
:mod:`thalweg.diagnosis.families`. A watch looks hundreds of times at a run, which is noisy: its limits must hold for
the most extreme of all looks, so a few of them are wider than those of the one look before the run.
"""

# -- before a run, and what both look at ----------------------------------------------------------------------------

#: a mean loss over classes above this many guesses plus one: outputs of twice the usual size still pass
INITIAL_LOSS = 2.0
#: a mean squared error above this many variances of the targets: a mean ten deviations away, or outputs of that size
INITIAL_ERROR = 100.0
#: root mean square of targets, beyond which the outputs of an untrained model are far too small
TARGET_SIZE = 1e3
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
#: share of the numbers in 16-bit formats, of those with a gradient, that a step at the peak rate changes; and share of
#: one layer's that an update changes, below which most of it is rounded away
SWALLOWED, SWALLOWED_OF_LAYER = 0.1, 0.02
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
#: share of a matrix's entries whose √v is below ε: at one look, and in so many samples of a watch in a row
EPS, EPS_WATCHED, EPS_FOR = 0.5, 0.7, 5
#: steps that an average looks back over, in lengths of the run; and as many as it does by default are nobody's mistake
MEMORY, MEMORY_USUAL = 20.0, 1000.0
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
#: optimizer steps after which the scheduler's own count is compared, by a watch later; and by how much it may differ
COUNTED, COUNTED_BY_WATCH, OUT_OF_STEP = 5, 6, 1.5
#: share of the targets that equal the input at another place, to call them that input shifted
SHIFTED = 0.95
#: variance that a latent variable must explain, over the largest that there is in a batch
COLLAPSES = 1.5
#: share of the targets that only fill up rows and count all the same; the end of a text is one target in a row
PADDED = 0.1
#: relative change of an output that is no rounding
CHANGED = 1e-3
#: change with the text, in changes with the padding, of a model that sees none of the text: rounding
UNSEEN = 1e-3
#: z-score above which labels fit an example's neighbour
PAIRED = 6.0

# -- beside a run ---------------------------------------------------------------------------------------------------

#: a loss so many robust deviations above the median of the last ones is a spike
SPIKE = 6.0
#: and at least by this share of what the loss has fallen so far: near its end a run's deviations are tiny
SPIKE_SHARE = 0.5
#: and by this share of the median: losses of small batches have long tails
SPIKE_OVER = 0.5
#: losses over which median and deviation are taken, and how many there must be before one can be a spike
WINDOW, SETTLED = 128, 32
#: spikes within a window from which on the run itself is unstable
SPIKES = 3
#: the latest losses lie above the first ones by so many deviations of both: the run climbs
CLIMBED, CLIMB_OVER = 5.0, 10
#: a norm of all gradients over the median of the last ones, and over the greatest of the first ones
GRADIENT_JUMP = 100.0
#: samples in a row in which a layer has gradients that are exactly zero, or none
DEAD_FOR = 5
#: the same of what gets gradients now and then: experts, layers that are dropped at random
SELDOM_FOR = 32
#: after so many looks one update that is too large may be a bounce, and so many in a row must be; unless the rate has
#: just been raised so many times
LARGE_FROM, LARGE_FOR, RAISED = 5, 2, 1.5
#: samples before clipping is judged
CLIPPED_AFTER = 8
#: samples in a row in which an update changes nothing of a layer that has gradients
STUCK_FOR = 3
#: the first samples from which a run's way is reckoned
SMALL_FOR = 9
#: a layer's update ratio against the median layer, and against the greatest of tuned runs; and the share of the usual
#: norm of a weight below which it is near zero
UNEVEN_WATCHED, NEAR_ZERO = 20.0, 0.03
#: losses after which a run that began with a bold step is judged, and the share of the first loss that is no success
STALLED_FOR, STALLED = 30, 0.93
#: losses after which a run that has learnt nothing is compared with tuned ones, the share of a guess's loss that is
#: nothing learnt, and the share of the upper end of their band above which its steps are then too large
NOWHERE_FOR, NOWHERE, BOLD = 60, 0.98, 1 / 3
#: share of the first loss below which a run has learnt what there is
LEARNT = 0.1
#: mean cosine between −gradient and update over the last samples: an update that climbs
UPHILL, UPHILL_FOR = -0.2, 10
#: a layer's norm over what it was at first, seldom above 10 in training from scratch; and, for those that began near
#: zero, over that of weights drawn with a variance of 1 / inputs
GROWN, GROWN_OVER_USUAL = 100.0, 20.0
#: updates whose passes must show the same, to say so; and passes of these
PASSES_FOR, PASSES = 3, 8
#: how often gradients may be cleared without an update; a scaler that looks for its scale skips a few
IDLE = 12
#: passes without an update, more than so many times the usual number of an update, or than this where none was made
UNSTEPPED, NEVER_STEPPED = 20, 512
#: share of the norm of all gradients below which one is no more than rounding, as of a bias before a batch norm
SLIGHT = 1e-5
#: a loss over all of the last ones and over the first ones: one such is told at once
LOSS_BURST, BURST_OVER_FIRST, BURST_AFTER = 10.0, 2.0, 10
#: samples in which decay makes most of the first steps, and what is left at the last two of its largest share
DECAY_FOR, DECAY_GOES_ON = 5, 0.85
#: the largest attention logit that a softmax bears: far above it all weight lies on one place, and runs without
#: normalized queries and keys were seen to diverge (Kimi K2's report); and as many units in the last place of the dtype
#: that holds the logits, which round them by more than 1
LOGIT, LOGIT_UNITS = 1000.0, 2.0
#: looks within the model in a row that must show the same; and the updates for which a router must be collapsed, since
#: while all tokens are alike, at the beginning, the same experts are chosen for all
INSIDE_FOR, ROUTED_FOR = 3, 30
#: a router that uses no more of the experts that it might use besides those of one token, or leaves more of them idle
COLLAPSED, IDLE_EXPERTS = 0.1, 0.5
#: choices for each expert without which a router is not judged
ROUTED = 8
#: share of an update that is taken back before the next one, and updates from the first on for which that must hold;
#: share of the elements of a matrix that are set to one bound after each of them
UNDONE, UNDONE_FOR, BOUND = 0.9, 5, 0.2
#: looks that see the same weights, and updates between the first and the last of them: a few tasks that begin alike,
#: or a rollback, are no fault
RETURNS, RETURNED_OVER = 4, 40

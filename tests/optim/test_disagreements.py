"""Where libraries differ over a rule: which reading is ours, and that an option gives another where there is one.

The numbers are worked out here, a formula for each reading, with a large ε so that its place shows.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

import thalweg
from tests.cases import distance, parameters, walk

START = np.array([1.0, -2.0, 0.5, 3.0])
GRADS = np.random.default_rng(0).normal(size=(6, 4))
FALLING = [0.1, 0.1, 0.1, 0.05, 0.02, 0.01]
ON_BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])


def path(rule, *, grads=GRADS, start=START, lrs=None, **flags):
    """Where a parameter is after each step along these gradients; ``lrs`` is a schedule."""
    p = nn.Parameter(torch.tensor(start))
    optimizer = getattr(thalweg, rule)([p], backend="eager", **flags)
    found = []
    for t, g in enumerate(grads):
        if lrs is not None:
            optimizer.param_groups[0]["lr"] = lrs[t]
        p.grad = torch.tensor(g)
        optimizer.step()
        found.append(p.detach().numpy().copy())
    return np.array(found)


def worked_out(update, *, grads=GRADS, start=START):
    """The same from ``update(x, g, t, s)``, with t = 1, 2, … and a dict s for whatever it keeps."""
    x, s, found = start.copy(), {}, []
    for t, g in enumerate(grads, 1):
        x = update(x, g, t, s)
        found.append(x)
    return np.array(found)


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def differ(a, b, by=1e-3):
    assert np.abs(np.asarray(a) - np.asarray(b)).max() > by


def mean(s, key, x, beta):
    """A running mean from 0."""
    s[key] = beta * s.get(key, 0.0) + (1 - beta) * x
    return s[key]


# -- plain and momentum ---------------------------------------------------------------------------------------------


def momentum(inside, nesterov=False, mu=0.9):
    """SGD's momentum with the learning rate inside or outside of the buffer."""

    def update(x, g, t, s):
        step = FALLING[t - 1]
        s["v"] = mu * s.get("v", 0.0) + (step * g if inside else g)
        ahead = (step * g if inside else g) + mu * s["v"] if nesterov else s["v"]
        return x - (1.0 if inside else step) * ahead

    return worked_out(update)


def test_sgd_has_the_learning_rate_outside_of_its_buffer_and_no_nesterov_unless_asked():
    ours = path("SGD", lrs=FALLING, lr=0.1, momentum=0.9)
    same(ours, momentum(inside=False))
    differ(ours, momentum(inside=True))
    differ(ours, momentum(inside=False, nesterov=True))


def test_nesterov_adds_the_new_gradient_whole():
    same(path("SGD", lrs=FALLING, lr=0.1, momentum=0.9, nesterov=True), momentum(inside=False, nesterov=True))


def test_lars_has_the_learning_rate_outside_of_its_buffer():
    plain = {"trust_coefficient": None, "momentum": 0.9}
    same(path("LARS", lrs=FALLING, lr=0.1, **plain), momentum(inside=False))


@ON_BACKENDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sgd_in_16_bits_moves_every_element(backend, dtype):
    (p,), (wide,) = parameters([(5, 13)], dtype), parameters([(5, 13)], torch.float32)
    wide.data.copy_(p.data)
    flags = {"lr": 0.1, "momentum": 0.9}
    ours, reference = thalweg.SGD([p], backend=backend, **flags), torch.optim.SGD([wide], **flags)
    for step in range(5):
        g = torch.randn(p.shape, generator=torch.Generator().manual_seed(step)).to(dtype)
        p.grad, wide.grad = g, g.float()
        ours.step()
        reference.step()
    assert distance([p], [wide]) < 16 * torch.finfo(dtype).eps
    buffers = ours.state[p]["momentum_buffer"].float(), reference.state[wide]["momentum_buffer"]
    torch.testing.assert_close(*buffers, rtol=0, atol=16 * torch.finfo(dtype).eps)


# -- Adagrad, RMSprop -----------------------------------------------------------------------------------------------


def test_adagrad_has_epsilon_outside_the_root_and_starts_at_zero_unless_told():
    def reading(start, inside):
        def update(x, g, t, s):
            s["G"] = s.get("G", start) + g**2
            return x - 0.1 * g / (np.sqrt(s["G"] + 0.5) if inside else np.sqrt(s["G"]) + 0.5)

        return worked_out(update)

    ours = path("Adagrad", lr=0.1, eps=0.5)
    same(ours, reading(0.0, inside=False))
    differ(ours, reading(0.0, inside=True))
    same(path("Adagrad", lr=0.1, eps=0.5, initial_accumulator_value=0.1), reading(0.1, inside=False))


def rmsprop(start=0.0, inside=False, corrected=False, lr_inside=False, mu=0.9):
    """Its readings, along a falling learning rate."""

    def update(x, g, t, s):
        s["v"] = 0.9 * s.get("v", start) + 0.1 * g**2
        v = s["v"] / (1 - 0.9**t) if corrected else s["v"]
        u = g / (np.sqrt(v + 0.5) if inside else np.sqrt(v) + 0.5)
        step = FALLING[t - 1]
        s["b"] = mu * s.get("b", 0.0) + (step * u if lr_inside else u)
        return x - (1.0 if lr_inside else step) * s["b"]

    return worked_out(update)


RMSPROP = {"lr": 0.1, "alpha": 0.9, "eps": 0.5, "momentum": 0.9, "lrs": FALLING}


def test_rmsprop_has_epsilon_outside_the_root_no_correction_and_lr_outside_of_its_buffer():
    ours = path("RMSprop", **RMSPROP)
    same(ours, rmsprop())
    for other in ({"start": 1.0}, {"inside": True}, {"corrected": True}, {"lr_inside": True}):
        differ(ours, rmsprop(**other))


@pytest.mark.parametrize(("option", "reading"), [
    ({"eps_in_root": True}, {"inside": True}),
    ({"initial_accumulator_value": 1.0}, {"start": 1.0}),
    ({"lr_in_momentum": True}, {"lr_inside": True}),
    ({"eps_in_root": True, "initial_accumulator_value": 1.0, "lr_in_momentum": True},
     {"inside": True, "start": 1.0, "lr_inside": True}),
])  # fmt: skip
def test_rmsprop_reads_as_tensorflow_by_options(option, reading):
    same(path("RMSprop", **RMSPROP, **option), rmsprop(**reading))


def test_the_corrected_rmsprop_is_adam_without_momentum():
    adam = path("Adam", betas=(0.0, 0.9), eps=0.5, lr=0.1, lrs=FALLING)
    same(adam, rmsprop(corrected=True, mu=0.0))


# -- Adam and its kin -----------------------------------------------------------------------------------------------


def adam(eps="after", l2=0.0, decoupled=0.0, rate=lambda t: 0.1):
    """Adam with ε after the correction, before it, in the root, or as a floor; with either decay."""

    def update(x, g, t, s):
        g = g + l2 * x
        m, v = mean(s, "m", g, 0.9) / (1 - 0.9**t), mean(s, "v", g**2, 0.99)
        corrected = np.sqrt(v / (1 - 0.99**t))
        size = {
            "after": corrected + 0.5,
            "before": (np.sqrt(v) + 0.5) / math.sqrt(1 - 0.99**t),
            "inside": np.sqrt(v / (1 - 0.99**t) + 0.5),
            "floor": np.maximum(corrected, 0.5),
        }[eps]
        return x * (1 - rate(t) * decoupled) - 0.1 * m / size

    return worked_out(update)


ADAM = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 0.5}


@pytest.mark.parametrize("rule", ["Adam", "AdamW", "LaProp", "AdaBelief", "QHAdam", "AdEMAMix", "MARS", "LAMB"])
def test_epsilon_is_added_to_the_corrected_root_at_the_first_step(rule):
    """There every one of them is g / (|g| + ε), whatever it averages later."""
    flags = {
        "QHAdam": {"nus": (1.0, 1.0)},
        "AdEMAMix": {"alpha": 0.0},
        "MARS": {"gamma": 0.0},
        "LAMB": {"weight_decay": 0.0},
        "AdaBelief": {"betas": (0.0, 0.99)},
    }.get(rule, {})
    grads = np.array([[0.3, -0.2, 0.1, 0.4]])  # shorter than 1, so that MARS cuts nothing
    if "weight_decay" in getattr(thalweg, rule).hypers:
        flags = {"weight_decay": 0.0, **flags}
    moved = START - path(rule, grads=grads, lr=0.1, eps=0.5, **flags)[0]
    g = grads[0]
    u = g / (np.abs(g) + 0.5)
    if rule == "AdaBelief":  # a belief of β₁ = 0 is never surprised: s is ε alone
        u = g / (math.sqrt(0.5 / (1 - 0.99)) + 0.5)
    if rule == "LAMB":
        u = u * np.linalg.norm(START) / np.linalg.norm(u)
    same(moved, 0.1 * u)


def test_adam_adds_epsilon_outside_the_root_after_the_correction():
    ours = path("Adam", **ADAM)
    same(ours, adam("after"))
    for other in ("before", "inside", "floor"):
        differ(ours, adam(other))


def test_adams_decay_is_in_the_gradient_and_decoupled_by_option():
    coupled = path("Adam", weight_decay=0.3, **ADAM)
    same(coupled, adam(l2=0.3))
    differ(coupled, path("AdamW", weight_decay=0.3, **ADAM))
    same(path("Adam", weight_decay=0.3, decoupled_weight_decay=True, **ADAM), path("AdamW", weight_decay=0.3, **ADAM))


def test_adamw_decays_by_lr_times_wd_before_the_step():
    ours = path("AdamW", weight_decay=0.3, **ADAM)
    same(ours, adam(decoupled=0.3))
    after = START - 0.1 * GRADS[0] / (np.abs(GRADS[0]) + 0.5)
    differ(ours[0], after * (1 - 0.1 * 0.3))


def test_independent_weight_decay_is_the_papers_by_the_schedule_alone():
    ours = path("AdamW", weight_decay=0.003, independent_weight_decay=True, lrs=FALLING, **ADAM)
    x, s = START, {}
    for t, (g, lr) in enumerate(zip(GRADS, FALLING, strict=True), 1):
        m, v = mean(s, "m", g, 0.9) / (1 - 0.9**t), mean(s, "v", g**2, 0.99) / (1 - 0.99**t)
        x = x - lr / FALLING[0] * 0.003 * x - lr * m / (np.sqrt(v) + 0.5)
    same(ours[-1], x)


def nadam(schedule, correction):
    """Look-ahead: with a schedule of β₁, or with β₁ and the correction of this step or the next."""

    def update(x, g, t, s):
        m, v = mean(s, "m", g, 0.9), mean(s, "v", g**2, 0.99) / (1 - 0.99**t)
        mu, following = (0.9 * (1 - 0.5 * 0.96 ** (k * 0.004)) for k in (t, t + 1))
        s["product"] = s.get("product", 1.0) * mu
        if schedule:
            ahead = following * m / (1 - s["product"] * following) + (1 - mu) * g / (1 - s["product"])
        else:
            ahead = 0.9 * m / (1 - 0.9 ** (t + correction)) + 0.1 * g / (1 - 0.9**t)
        return x - 0.1 * ahead / (np.sqrt(v) + 0.5)

    return worked_out(update)


def test_nadam_has_dozats_schedule_and_nadamw_none():
    np.testing.assert_allclose(path("NAdam", **ADAM), nadam(schedule=True, correction=0), atol=1e-6)  # kept in float32
    same(path("NAdamW", weight_decay=0.0, **ADAM), nadam(schedule=False, correction=0))
    differ(nadam(schedule=True, correction=0), nadam(schedule=False, correction=0))


def test_nadamw_corrects_its_mean_as_of_this_step_and_as_of_the_next_by_option():
    same(path("NAdamW", weight_decay=0.0, next_correction=True, **ADAM), nadam(schedule=False, correction=1))


def radam(threshold, eps="before", idle=False, betas=(0.9, 0.9)):
    """RAdam; ``idle`` does nothing before it rectifies."""

    def update(x, g, t, s):
        b1, b2 = betas
        m, v = mean(s, "m", g, b1) / (1 - b1**t), mean(s, "v", g**2, b2)
        longest = 2 / (1 - b2) - 1
        length = longest - 2 * t * b2**t / (1 - b2**t)
        if length <= threshold:
            return x if idle else x - 0.1 * m
        r = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        c = math.sqrt(1 - b2**t)
        return x - 0.1 * m * r * (c / (np.sqrt(v) + 0.5) if eps == "before" else 1 / (np.sqrt(v) / c + 0.5))

    return worked_out(update)


def test_radam_rectifies_above_five_and_moves_by_the_plain_mean_till_then():
    ours = path("RAdam", lr=0.1, betas=(0.9, 0.9), eps=0.5)  # ρ₄ = 3.8, ρ₅ = 4.6, ρ₆ = 5.4
    same(ours, radam(5))
    differ(ours, radam(4))
    differ(ours, radam(5, idle=True))
    differ(ours, radam(5, eps="after"))


def test_radam_rectifies_above_the_papers_four_by_option():
    same(path("RAdam", lr=0.1, betas=(0.9, 0.9), eps=0.5, threshold=4.0), radam(4))


def adopt(exponent=None, first=1, debias=False):
    """ADOPT with a clip of (t − 1 + first)^exponent, whose t counts from the first real update."""

    def update(x, g, t, s):
        if t == 1:
            s["v"], s["m"] = g**2, 0.0
            return x
        n = t - 1
        normed = g / np.maximum(np.sqrt(s["v"]), 1e-6)
        if exponent is not None:
            bound = (n - 1 + first) ** exponent
            normed = np.clip(normed, -bound, bound)
        s["m"] = 0.9 * s["m"] + 0.1 * normed
        s["v"] = 0.99 * s["v"] + 0.01 * g**2
        return x - 0.1 * (s["m"] / (1 - 0.9**n) if debias else s["m"])

    return worked_out(update)


def test_adopt_clips_at_the_fourth_root_of_t_counted_from_the_first_update_that_moves():
    ours = path("ADOPT", lr=0.1, betas=(0.9, 0.99))
    same(ours, adopt(exponent=0.25))
    differ(ours, adopt(exponent=0.25, first=2))
    differ(ours, adopt(exponent=1 / 3))


def test_adopt_moves_nothing_at_first_and_corrects_no_mean():
    ours = path("ADOPT", lr=0.1, betas=(0.9, 0.99), clip=False)
    same(ours[0], START)
    same(ours, adopt())
    differ(ours, adopt(debias=True))


def test_adopts_decay_is_coupled_unless_asked():
    plain = path("ADOPT", lr=0.1)
    same(path("ADOPT", lr=0.1, weight_decay=0.5)[0], plain[0])  # in the gradient that moves nothing yet
    same(path("ADOPT", lr=0.1, weight_decay=0.5, decoupled_weight_decay=True)[0], plain[0] * (1 - 0.1 * 0.5))


def test_ademamix_warms_nothing_up_unless_asked_and_each_of_two_by_itself():
    def update(x, g, t, s):
        fast, slow = mean(s, "fast", g, 0.9) / (1 - 0.9**t), mean(s, "slow", g, 0.999)
        v = mean(s, "v", g**2, 0.99) / (1 - 0.99**t)
        return x - 0.1 * (fast + 5.0 * slow) / (np.sqrt(v) + 0.5)

    flags = {"lr": 0.1, "betas": (0.9, 0.99, 0.999), "eps": 0.5}
    ours = path("AdEMAMix", **flags)
    same(ours, worked_out(update))
    warmed = [path("AdEMAMix", **flags, **{option: 50.0}) for option in ("alpha_warmup", "beta3_warmup")]
    for one in (*warmed, path("AdEMAMix", **flags, alpha_warmup=50.0, beta3_warmup=50.0)):
        differ(ours, one)
    differ(*warmed)


def mars(zero_start=False, bound=1.0, factor=0.025 * 0.95 / 0.05):
    """MARS-AdamW on one tensor."""

    def update(x, g, t, s):
        old = s.get("g", 0.0 * g if zero_start else g)
        c = g + factor * (g - old)
        s["g"] = g
        c = c / max(1.0, np.linalg.norm(c) / bound)
        m, v = mean(s, "m", c, 0.95) / (1 - 0.95**t), mean(s, "v", c**2, 0.99) / (1 - 0.99**t)
        return x - 0.1 * m / (np.sqrt(v) + 0.5)

    return worked_out(update)


def test_mars_sees_no_change_at_first_cuts_to_a_norm_of_one_and_weighs_changes_by_beta_over_one_less_beta():
    ours = path("MARS", lr=0.1, eps=0.5)
    same(ours, mars())
    differ(ours, mars(zero_start=True))
    differ(ours, mars(bound=math.inf))
    differ(ours, mars(factor=0.95 * 0.025 / (1 - 0.025)))  # γ and β₁ the wrong way round


def test_mars_counts_the_first_gradient_as_a_change_by_option():
    same(path("MARS", lr=0.1, eps=0.5, zero_start=True), mars(zero_start=True))


def test_lion_decays_by_lr_times_wd_outside_of_the_gradient():
    def update(x, g, t, s):
        u = np.sign(0.9 * s.get("m", 0.0) + 0.1 * g)
        mean(s, "m", g, 0.99)
        return x * (1 - 0.1 * 0.3) - 0.1 * u

    same(path("Lion", lr=0.1, weight_decay=0.3), worked_out(update))


def cautious(normal):
    """AdamW that moves where it agrees with the gradient, over some measure of how many do."""

    def update(x, g, t, s):
        m, v = mean(s, "m", g, 0.9) / (1 - 0.9**t), mean(s, "v", g**2, 0.99) / (1 - 0.99**t)
        u = m / (np.sqrt(v) + 0.5)
        mask = u * g > 0
        return x - 0.1 * u * mask / normal(mask)

    return worked_out(update)


def test_cautious_divides_by_the_share_that_agrees():
    ours = path("AdamW", weight_decay=0.0, cautious=True, **ADAM)
    same(ours, cautious(lambda mask: max(mask.mean(), 1e-3)))
    differ(ours, cautious(lambda mask: (mask.sum() + 1) / mask.size))
    differ(ours, cautious(lambda mask: 1.0))


def test_cautious_lion_masks_the_sign():
    def update(x, g, t, s):
        u = np.sign(0.9 * s.get("m", 0.0) + 0.1 * g)
        mean(s, "m", g, 0.99)
        mask = u * g > 0
        return x - 0.1 * u * mask / max(mask.mean(), 1e-3)

    same(path("Lion", lr=0.1, weight_decay=0.0, cautious=True), worked_out(update))


@ON_BACKENDS
@pytest.mark.parametrize("rule", ["Adam", "AdamW", "NAdam", "RAdam", "Adamax"])
def test_adam_in_float16_with_an_epsilon_that_float16_cannot_hold(rule, backend):
    assert torch.tensor(1e-8, dtype=torch.float16) == 0
    (p,), (wide,) = parameters([(40,)], torch.float16), parameters([(40,)], torch.float32)
    wide.data.copy_(p.data)
    a = getattr(thalweg, rule)([p], lr=1e-3, eps=1e-8, backend=backend)
    b = getattr(thalweg, rule)([wide], lr=1e-3, eps=1e-8, backend=backend)
    for step in range(30):
        # squares of the smallest are below what float16 can hold, some gradients are 0
        g = torch.randn(40, generator=torch.Generator().manual_seed(step)) * torch.logspace(-4, 0, 40)
        g[::8] = 0.0
        p.grad, wide.grad = g.half(), g.half().float()
        a.step()
        b.step()
    assert p.isfinite().all()
    assert all(x.isfinite().all() for x in a.state[p].values())
    large = slice(20, 40)
    assert (p.float() - wide)[large].abs().max() < 0.01


# -- by layer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lambs_first_step_is_lr_times_the_norm_of_the_tensor_with_decay_in_it_or_none(decay):
    moved = START - path("LAMB", lr=0.1, weight_decay=decay)[0]
    assert np.linalg.norm(moved) == pytest.approx(0.1 * np.linalg.norm(START), rel=1e-12)
    g = GRADS[0]
    r = g / (np.abs(g) + 1e-6) + decay * START
    same(moved, 0.1 * np.linalg.norm(START) / np.linalg.norm(r) * r)


def test_lamb_corrects_its_means_inside_of_the_ratio_and_clips_nothing_unless_asked():
    def reading(clip, corrected=True):
        def update(x, g, t, s):
            g = g * min(1.0, clip / (np.linalg.norm(g) + 1e-6))
            m, v = mean(s, "m", g, 0.9), mean(s, "v", g**2, 0.99)
            if corrected:
                m, v = m / (1 - 0.9**t), v / (1 - 0.99**t)
            r = m / (np.sqrt(v) + 0.5)
            return x - 0.1 * np.linalg.norm(x) / np.linalg.norm(r) * r

        return worked_out(update)

    ours = path("LAMB", weight_decay=0.0, **ADAM)
    same(ours, reading(clip=math.inf))
    differ(ours, reading(clip=1.0))
    differ(ours, reading(clip=math.inf, corrected=False))
    same(path("LAMB", weight_decay=0.0, clip_global_norm=1.0, **ADAM), reading(clip=1.0))


# -- small memory ---------------------------------------------------------------------------------------------------


def rms(x):
    return np.sqrt((x**2).mean())


def adafactor(scaled, relative):
    """Its first steps on a matrix, with ε₁ added to the square."""
    x, s, found = START.reshape(2, 2).copy(), {}, []
    for t, g in enumerate(GRADS.reshape(-1, 2, 2), 1):
        beta = 1 - t**-0.8
        square = g**2 + 1e-30
        s["R"] = beta * s.get("R", 0.0) + (1 - beta) * square.mean(1, keepdims=True)
        s["C"] = beta * s.get("C", 0.0) + (1 - beta) * square.mean(0, keepdims=True)
        U = g / np.sqrt(s["R"] * s["C"] / s["R"].mean())
        U = U / max(1.0, rms(U))
        rho = min(0.9, 1 / math.sqrt(t)) if relative else 0.9
        x = x - rho * (max(1e-3, rms(x)) if scaled else 1.0) * U
        found.append(x)
    return np.array(found)


@pytest.mark.parametrize(("options", "reading"), [
    ({}, {"scaled": True, "relative": True}),
    ({"scale_parameter": False}, {"scaled": False, "relative": True}),
    ({"relative_step": False}, {"scaled": True, "relative": False}),
    ({"relative_step": False, "scale_parameter": False}, {"scaled": False, "relative": False}),
], ids=str)  # fmt: skip
def test_adafactor_steps_by_the_weights_size_though_lr_is_given_and_options_say_otherwise(options, reading):
    given = {"start": START.reshape(2, 2), "grads": GRADS.reshape(-1, 2, 2), "lr": 0.9, "added_eps": True}
    ours = path("Adafactor", eps=(1e-30, 1e-3), **given, **options)
    same(ours, adafactor(**reading))
    for scaled in (True, False):
        for relative in (True, False):
            if {"scaled": scaled, "relative": relative} != reading:
                differ(ours, adafactor(scaled, relative))


def test_adafactor_factors_the_last_two_dimensions_however_small():
    tensor, matrix, vector = parameters([(5, 4, 2, 3), (2, 2), (7,)])
    optimizer = thalweg.Adafactor([tensor, matrix, vector])
    walk(optimizer, [tensor, matrix, vector], 1)
    assert {tuple(optimizer.state[tensor][k].shape) for k in ("row_var", "col_var")} == {(5, 4, 2, 1), (5, 4, 1, 3)}
    assert optimizer.state[matrix]["row_var"].shape == (2, 1)
    assert "row_var" not in optimizer.state[vector]


# -- no tuning ------------------------------------------------------------------------------------------------------


def prodigy(corrected):
    """Prodigy from d₀ = 0.1, with Adam's correction as a factor of the learning rate or without."""

    def update(x, g, t, s):
        d, d0, beta3 = s.get("d", 0.1), 0.1, math.sqrt(0.99)
        rate = d * (math.sqrt(1 - 0.99**t) / (1 - 0.9**t) if corrected else 1.0)
        s["r"] = beta3 * s.get("r", 0.0) + d / d0 * rate * (g @ (START - x))
        s["s"] = beta3 * s.get("s", 0.0) + d / d0 * rate * g
        s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * d * g
        s["v"] = 0.99 * s.get("v", 0.0) + 0.01 * (d * g) ** 2
        s["top"] = max(s.get("top", d0), s["r"] / np.abs(s["s"]).sum())
        s["d"] = s["top"]
        return x - rate * s["m"] / np.sqrt(s["v"])

    return worked_out(update)


def test_prodigy_corrects_nothing_unless_asked():
    flags = {"betas": (0.9, 0.99), "d0": 0.1, "eps": 1e-300}
    same(path("Prodigy", **flags), prodigy(corrected=False))
    same(path("Prodigy", use_bias_correction=True, **flags), prodigy(corrected=True))
    differ(prodigy(corrected=False), prodigy(corrected=True))


def schedule_free(lrs, *, largest=True, at_y=True):
    """Schedule-Free AdamW: steps weighed by the largest learning rate so far or the present one; decay at y or at z."""

    def update(y, g, t, s):
        lr, z = lrs[t - 1], s.get("z", y)
        s["v"] = 0.99 * s.get("v", 0.0) + 0.01 * g * g
        s["lr"] = max(s.get("lr", 0.0), lr) if largest else lr
        s["sum"] = s.get("sum", 0.0) + s["lr"] ** 2
        x = (y - 0.1 * z) / 0.9  # of y = βx + (1 − β)z
        g = g / (np.sqrt(s["v"] / (1 - 0.99**t)) + 0.1)
        s["z"] = z - lr * (g + 0.3 * (y if at_y else z))
        c = s["lr"] ** 2 / s["sum"]
        return 0.9 * ((1 - c) * x + c * s["z"]) + 0.1 * s["z"]

    return worked_out(update)


def test_schedule_free_weighs_by_the_largest_lr_and_decays_at_y():
    flags = {"betas": (0.9, 0.99), "eps": 0.1, "weight_decay": 0.3}
    same(path("ScheduleFreeAdamW", lrs=FALLING, **flags), schedule_free(FALLING))
    differ(schedule_free(FALLING), schedule_free(FALLING, largest=False))
    differ(schedule_free(FALLING), schedule_free(FALLING, at_y=False))


# -- curvature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["SophiaH", "SophiaG"])
def test_sophia_clips_at_one_what_gamma_has_scaled(rule):
    h = np.array([5.0, 0.0, 200.0, 1e-20])
    p = nn.Parameter(torch.tensor(START))
    optimizer = getattr(thalweg, rule)([p], lr=0.1, betas=(0.0, 0.0), gamma=0.5, eps=1e-3, weight_decay=0.0)
    optimizer.take_hessian([torch.tensor(h)])
    p.grad = torch.tensor(GRADS[0])
    optimizer.step()
    u = np.clip(GRADS[0] / np.maximum(0.5 * h, 1e-3), -1, 1)
    same(START - p.detach().numpy(), 0.1 * u)
    other = np.clip(GRADS[0] / np.maximum(h, 1e-3), -0.5, 0.5)  # the same shape, γ times as long
    same(u * 0.5, other)
    differ(u, other)


def test_sophias_probe_is_normal_as_in_the_paper_and_rademacher_by_option():
    p = nn.Parameter(torch.ones(50, dtype=torch.float64))
    optimizer = thalweg.SophiaH([p], betas=(0.9, 0.0))
    optimizer.update_hessian(0.5 * (p**2).sum())
    assert optimizer.state[p]["hessian"].unique().numel() == 50
    optimizer.update_hessian(0.5 * (p**2).sum(), probe="rademacher")
    assert optimizer.state[p]["hessian"].unique().tolist() == [1.0]


def test_adahessian_averages_signed_curvature_as_in_the_paper_and_its_size_by_option():
    D = torch.tensor([1.0, -1.0, 3.0, -3.0], dtype=torch.float64).view(1, 1, 4)
    for absolute, expected in ((False, 0.0), (True, 2.0)):
        p = nn.Parameter(torch.zeros(1, 1, 4, dtype=torch.float64))
        optimizer = thalweg.AdaHessian([p], absolute=absolute)
        optimizer.take_hessian([D])
        assert optimizer.state[p]["hessian"].unique().tolist() == [expected]


# -- Muon -----------------------------------------------------------------------------------------------------------

BF16 = 2e-3  # of 0.1: products are in bfloat16, as torch's are
EXACT = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 30, "weight_decay": 0.0}


def polar(G):
    U, _, V = np.linalg.svd(G, full_matrices=False)
    return U @ V


def test_muons_mean_and_a_plain_sum_are_the_same_and_its_look_ahead_weighs_the_gradient_as_nesterov():
    grads = np.random.default_rng(1).normal(size=(5, 3, 3))
    ours = path("Muon", start=np.zeros((3, 3)), grads=grads, lr=0.1, **EXACT)

    def reading(whole):
        x, total, found = np.zeros((3, 3)), 0.0, []
        for g in grads:
            total = 0.95 * total + g
            ema = 0.05 * total
            x = x - 0.1 * polar(g + ema if whole else g + 0.95 * total)
            found.append(x)
        return np.array(found)

    np.testing.assert_allclose(ours, reading(whole=False), atol=BF16)
    differ(ours, reading(whole=True), by=10 * BF16)  # the gradient whole beside a mean of gradients


@pytest.mark.parametrize(("shape", "fn", "scale"), [
    ((8, 2), None, 2.0),  # rows are outputs, as in torch's layers: √(out / in)
    ((2, 8), None, 1.0),
    ((8, 2), "original", 2.0),
    ((8, 2), "match_rms_adamw", 0.2 * math.sqrt(8)),
    ((2, 8), "match_rms_adamw", 0.2 * math.sqrt(8)),
])  # fmt: skip
def test_muons_step_is_scaled_as_jordans_and_as_moonlights_by_option(shape, fn, scale):
    G = np.random.default_rng(2).normal(size=shape)
    ours = path("Muon", start=np.zeros(shape), grads=G[None], lr=0.1, adjust_lr_fn=fn, **EXACT)
    np.testing.assert_allclose(ours[0], -0.1 * scale * polar(G), atol=BF16 * scale)


def test_muons_quintic_is_jordans_five_times():
    U, _, V = np.linalg.svd(np.random.default_rng(3).normal(size=(6, 6)))
    values = np.linspace(0.2, 1.0, 6)
    ours = path("Muon", start=np.zeros((6, 6)), grads=(U @ np.diag(values) @ V)[None], lr=1.0, weight_decay=0.0)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    found = np.linalg.svd(ours[0], compute_uv=False)
    np.testing.assert_allclose(found, np.sort(values)[::-1], rtol=0.03)
    differ(values, np.ones(6), by=0.05)


@ON_BACKENDS
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_in_bfloat16_leaves_its_momentum_as_it_is(backend, nesterov):
    (p,) = parameters([(16, 16)], torch.bfloat16)
    optimizer = thalweg.Muon([p], lr=0.01, nesterov=nesterov, backend=backend)
    total = torch.zeros(16, 16)
    for step in range(3):
        g = torch.randn(16, 16, generator=torch.Generator().manual_seed(step)).bfloat16()
        p.grad = g
        optimizer.step()
        total = 0.95 * total + 0.05 * g.float()
    kept = optimizer.state[p]["momentum_buffer"].float()
    torch.testing.assert_close(kept, total, rtol=0.02, atol=1e-3)
    assert kept.norm() == pytest.approx(total.norm().item(), rel=0.01)


# -- of all of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "flags"), [
    ("AdamW", {"decoupled_weight_decay": False}),  # what a class is cannot be asked away
    ("LAMB", {"trust_ratio": False}),
    ("Lion", {"decoupled_weight_decay": True}),
    ("MARS", {"amsgrad": True}),
])  # fmt: skip
def test_a_flag_that_a_class_has_settled_is_refused(rule, flags):
    with pytest.raises(TypeError, match=next(iter(flags))):
        getattr(thalweg, rule)(parameters([(3,)]), **flags)


@pytest.mark.parametrize(("rule", "flags", "message"), [
    ("SGD", {"nesterov": True}, "nesterov=.*momentum > 0"),
    ("RMSprop", {"lr_in_momentum": True}, "lr_in_momentum=True: expected False, unless there is momentum"),
    ("Adam", {"independent_weight_decay": True, "weight_decay": 0.1}, "independent_weight_decay"),
    ("RAdam", {"threshold": 3.0}, "threshold=3.0"),
])  # fmt: skip
def test_a_flag_that_would_do_nothing_is_refused(rule, flags, message):
    with pytest.raises(ValueError, match=message):
        getattr(thalweg, rule)(parameters([(3,)]), **flags)

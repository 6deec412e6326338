"""How numbers lie in memory."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import thalweg
from thalweg.ir import counter_rng
from thalweg.runtime.formats import BLOCK, Format, companded
from thalweg.runtime.tensors import is_dense

BACKENDS = ["eager", "foreach", "cpu"]


def round_trip(name, x, draw=counter_rng.nearest):
    f = Format(name)
    kept = torch.zeros_like(x, dtype=f.dtype)
    beside = f.new_beside(kept)
    f.encode(x, kept, beside, draw)
    return f.decode(kept, beside)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=300))
def test_split16_keeps_a_float32_to_the_bit(values):
    x = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(round_trip("split16", x).view(torch.int32), x.view(torch.int32))


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=300))
def test_split8_keeps_sixteen_bits_of_the_mantissa(values):
    x = torch.tensor(values, dtype=torch.float32)
    assert ((round_trip("split8", x) - x).abs() <= x.abs() * 2.0**-16).all()


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=50))
def test_the_parameter_of_a_split_is_within_half_a_unit_of_the_master(values):
    x = torch.tensor(values, dtype=torch.float32)
    for name in ("split8", "split16"):
        kept = torch.zeros_like(x, dtype=torch.bfloat16)
        Format(name).encode(x, kept, Format(name).new_beside(kept), counter_rng.nearest)
        assert ((kept.float() - x).abs() <= x.abs() * 2.0**-8 * 1.01).all()


@given(st.integers(1, 400), st.integers(0, 1000), st.floats(-20, 20))
def test_eight_bits_are_within_one_step_of_the_code(numel, seed, exponent):
    x = torch.randn(numel, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    tops = (
        torch.nn.functional.pad(x, (0, -numel % BLOCK)).view(-1, BLOCK).abs().amax(1).repeat_interleave(BLOCK)[:numel]
    )
    z = (x / tops).abs()
    signed = (round_trip("int8", x) / tops - x / tops).abs()
    slope = (1 + 3 * (companded(z) + 0.5 / 127) ** 2) / 2
    assert (signed <= slope / 127 * 0.52 + 1e-5).all()  # half a step of the code, and what the fitted inverse is off
    square = (round_trip("uint8", x * x) - x * x).abs() / (tops * tops)
    assert (square <= 2 * z / 255 * 0.51 + 1.01 / 255**2).all()


def test_companding_is_the_inverse_of_its_cubic():
    z = torch.linspace(-1, 1, 2001)
    assert (companded(z * (1 + z * z) / 2) - z).abs().max() < 1.2e-4


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_a_block_of_zeros_stays_zero_and_a_nan_stays_in_its_block(name):
    x = torch.zeros(3 * BLOCK)
    x[BLOCK] = float("nan")
    x[2 * BLOCK :] = 1.0
    back = round_trip(name, x)
    assert (back[:BLOCK] == 0).all()
    assert back[BLOCK : 2 * BLOCK].isnan().all()
    assert (back[2 * BLOCK :] == 1).all()


def test_a_mean_square_that_is_not_zero_stays_so():
    x = torch.full((BLOCK,), 1e-12)
    x[0] = 1.0
    assert (round_trip("uint8", x) > 0).all()


@pytest.mark.parametrize("name", ["split8", "split16", "bfloat16", "float16"])
def test_what_is_not_finite_stays_so(name):
    x = torch.tensor([float("inf"), -float("inf"), float("nan"), 1.0])
    torch.testing.assert_close(round_trip(name, x), x, equal_nan=True)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "int8", "uint8"])
def test_rounding_at_random_is_right_on_average(name):
    x = torch.full((BLOCK * 512,), 0.3333)
    x[::BLOCK] = 1.0
    f = Format(name, stochastic=True)
    kept = torch.zeros_like(x, dtype=f.dtype)
    beside = f.new_beside(kept)
    f.encode(x, kept, beside, counter_rng.draw(counter_rng.key(0, 1), 0, 0))
    back = f.decode(kept, beside)[1::BLOCK]
    assert back.unique().numel() == 2
    assert back.mean().item() == pytest.approx(0.3333, abs=4 * back.std().item() / back.numel() ** 0.5 + 1e-4)


def test_rounding_at_random_is_right_on_average_among_the_smallest_of_float16():
    x = torch.full((BLOCK * 512,), 2.0**-27)
    f = Format("float16", stochastic=True)
    kept = torch.zeros_like(x, dtype=f.dtype)
    f.encode(x, kept, None, counter_rng.draw(counter_rng.key(0, 1), 0, 0))
    assert kept.unique().tolist() == [0.0, 2.0**-24]
    assert kept.double().mean().item() == pytest.approx(2.0**-27, rel=0.05)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_moments_in_float16_do_not_vanish(backend):
    p = torch.nn.Parameter(torch.zeros(1000, dtype=torch.float16))
    optimizer = thalweg.AdamW([p], lr=1e-4, weight_decay=0.0, rounding="stochastic", backend=backend)
    for _ in range(100):
        p.grad = torch.full_like(p, 1e-3)
        optimizer.step()
    assert optimizer.state[p]["exp_avg_sq"].double().mean().item() == pytest.approx(1e-6 * (1 - 0.999**100), rel=0.1)


def test_random_bits_look_random():
    bits = counter_rng.bits(counter_rng.stream(counter_rng.key(3, 5), 7, 0), 1 << 14)
    ones = torch.stack([(bits >> k & 1).double().mean() for k in range(32)])
    assert ((ones - 0.5).abs() < 5 * 0.5 / 2**7).all()
    others = counter_rng.bits(counter_rng.stream(counter_rng.key(3, 6), 7, 0), 1 << 14)
    assert ((bits ^ others) & 1).double().mean().item() == pytest.approx(0.5, abs=0.02)


def of_slot(slot, update=1, numel=1 << 17):
    return counter_rng.draw(counter_rng.key(3, update), 7, slot)(numel)


@pytest.mark.parametrize("slot", [0, 1, 2])
@pytest.mark.parametrize("half", [0, 16])
def test_every_value_of_either_byte_is_as_frequent(slot, half):
    drawn = of_slot(slot).view(-1, 32)[:, half : half + 16].flatten()
    for byte in (drawn >> 8, drawn & 0xFF):
        expected = len(byte) / 256
        chi_square = ((byte.bincount(minlength=256) - expected) ** 2 / expected).sum().item()
        assert abs(chi_square - 255) < 5 * (2 * 255) ** 0.5


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].abs().item()


def test_neither_neighbours_nor_slots_nor_updates_follow_each_other():
    mine = of_slot(0)
    most = 5 / len(mine) ** 0.5  # five standard deviations
    for lag in range(1, 70):
        assert correlation(mine[:-lag], mine[lag:]) < most + (1 / 256 if lag == 16 else 0)
    for other in (of_slot(1), of_slot(2), of_slot(0, update=2), of_slot(1, update=2)):
        assert correlation(mine, other) < most
        assert correlation(mine[:-16], other[16:]) < most + 1 / 256
        assert correlation(mine[16:], other[:-16]) < most + 1 / 256


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_steps_of_a_thousandth_of_a_code_move_a_state_as_fast_as_they_should(name):
    of_code = 40.001  # between two codes, one in a thousand is the upper one
    z = of_code / (127 if name == "int8" else 255)
    x = torch.full((BLOCK * 2000,), z * (1 + z * z) / 2 if name == "int8" else z * z)
    x[::BLOCK] = 1.0
    f = Format(name, stochastic=True)
    kept, draw = torch.zeros_like(x, dtype=f.dtype), counter_rng.draw(counter_rng.key(0, 1), 0, 1)
    f.encode(x, kept, f.new_beside(kept), draw)
    codes = kept.view(-1, BLOCK)[:, 1:].double()
    off = 127 * 1.2e-4 if name == "int8" else 1e-4  # of the fitted inverse
    assert codes.mean().item() == pytest.approx(of_code, abs=off + 5 * (0.02 / codes.numel()) ** 0.5)
    if name == "uint8":
        assert (codes == 41).double().mean().item() == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("shape", [(7, 45), (5, 3, 11), (40, 129)])
def test_rows_that_begin_anywhere_are_rounded_by_the_bits_of_their_elements(shape):
    ours = {}
    for backend in ("eager", "cpu"):
        p = torch.nn.Parameter(torch.linspace(0.5, 1.5, torch.Size(shape).numel()).view(shape).bfloat16())
        optimizer = thalweg.SGD([p], lr=1e-3, rounding="stochastic", centralize=True, backend=backend)
        for step in range(4):
            p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(step)).bfloat16()
            optimizer.step()
        ours[backend] = p.detach().float()
    assert (ours["eager"] == ours["cpu"]).double().mean() > 0.99


def test_no_two_streams_are_alike():
    keys = {
        counter_rng.stream(counter_rng.key(seed, update), p, slot)
        for seed in range(5)
        for update in range(5)
        for p in range(20)
        for slot in (0, 2, 4)
    }
    assert len(keys) == 5 * 5 * 20 * 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "kwargs"), [
    (torch.bfloat16, {"rounding": "stochastic"}), (torch.float16, {"rounding": "stochastic"}),
    (torch.bfloat16, {"master": "split8"}), (torch.bfloat16, {"master": "split16"}),
])  # fmt: skip
def test_two_hundred_updates_of_an_eighth_of_a_unit_move_a_parameter(backend, dtype, kwargs):
    p = torch.nn.Parameter(torch.ones(500, dtype=dtype))
    optimizer = thalweg.SGD([p], lr=1.0, backend=backend, **kwargs)
    unit = torch.finfo(dtype).eps / 2  # the distance to the next number below 1
    for _ in range(200):
        p.grad = torch.full_like(p, unit / 8)
        optimizer.step()
    assert p.float().mean().item() == pytest.approx(1 - 25 * unit, abs=unit)


def test_without_them_it_does_not_move():
    p = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    optimizer = thalweg.SGD([p], lr=1.0)
    for _ in range(200):
        p.grad = torch.full_like(p, 2.0**-11)
        optimizer.step()
    assert (p == 1).all()


@pytest.mark.parametrize("state_dtype", ["bfloat16", "int8"])
def test_a_slow_mean_in_few_bits_follows_its_float32_twin(state_dtype):
    """With β₂ = 0.999 every step of the mean is below half a unit; rounded to the nearest it would stand still."""
    ends = []
    for kind in ("float32", state_dtype):
        p = torch.nn.Parameter(torch.zeros(4096))
        optimizer = thalweg.RMSprop([p], lr=0.0, alpha=0.999, state_dtype=kind)
        for step in range(1500):
            p.grad = torch.full_like(p, 1.0 if step < 500 else 0.5)
            optimizer.step()
        f = Format("uint8" if kind == "int8" else kind)
        ends.append(f.decode(optimizer.state[p]["square_avg"], optimizer.state[p].get("square_avg_scale")))
    assert ends[1].mean().item() == pytest.approx(ends[0].mean().item(), rel=0.02)


@pytest.mark.parametrize(("state_dtype", "bytes_"), [("float32", 8.0), ("bfloat16", 4.0), ("int8", 2 * (1 + 4 / 128))])
def test_states_take_the_bytes_they_promise(state_dtype, bytes_):
    p = torch.nn.Parameter(torch.randn(1280))
    p.grad = torch.randn_like(p)
    optimizer = thalweg.AdamW([p], state_dtype=state_dtype)
    optimizer.step()
    kept = sum(t.numel() * t.element_size() for name, t in optimizer.state[p].items() if name != "step")
    assert kept / p.numel() == bytes_
    assert optimizer.plan().parts[0].state_bytes == bytes_


@given(st.permutations([0, 1, 2]), st.tuples(*[st.integers(1, 4)] * 3))
def test_dense_is_dense_in_any_order(order, shape):
    assert is_dense(torch.empty(shape).permute(order))
    assert not is_dense(torch.empty(4, 4)[:, :2])
    assert not is_dense(torch.empty(3, 1).expand(3, 4))


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({"master": "split16"}, torch.float32),
        ({"master": "split8"}, torch.float16),
        ({"rounding": "stochastic"}, torch.float32),
        ({"rounding": "stochastic"}, torch.float64),
    ],
    ids=str,
)
def test_what_is_asked_in_vain_is_said_once(given, dtype):
    (name,) = given
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype))]
    with pytest.warns(UserWarning, match=f"{name}='.*' has no effect: .*these are in {str(dtype)[6:]}") as said:
        optimizer = thalweg.AdamW(params, **given)
    assert len(said) == 1
    assert said[0].filename == __file__
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    thalweg.AdamW([*params, torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))], **given)

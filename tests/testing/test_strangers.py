"""A stranger's optimizer passes; each fault that one may have is found, by the checks that it breaks and no other."""

import re

import pytest
import torch

from tests.testing import strangers
from tests.testing.strangers import Momentum, case
from thalweg.testing import CHECKS, Case, Nonconforming, check, examine

#: what a wrong path breaks, wherever it is compared with the reference
PATH = {
    "equals_its_reference_for_100_steps",
    "serves_with_schedulers_of_torch",
    "a_parameter_without_gradient_is_left_alone",
    "complex_parameters_move_as_pairs_or_are_refused",
}
DOWN = {"descends_a_quadratic", "learns_to_tell_irises"}
RATE = {
    "obeys_a_learning_rate_that_changes",
    "serves_with_schedulers_of_torch",
    "resume_equals_no_interruption",
    "a_checkpoint_from_before_the_first_step_loads",
    "groups_have_hyperparameters_of_their_own",
}
KEPT = {"resume_equals_no_interruption", "a_copy_goes_on_training_the_same"}

FAULTS = [
    ("KeepsItsStateToItself", KEPT, "state_dict does not hold all that .* does not save its attributes buffers"),
    ("LosesAnAttribute", {"a_copy_goes_on_training_the_same"},
     "copied by pickle it cannot step: AttributeError: .*attribute 'scale'"),
    ("IgnoresNesterov", {"equals_its_reference_for_100_steps", "every_flag_changes_the_path"},
     "nesterov=True changes nothing in 8 steps"),
    ("WritesToTheGradient", {"gradients_are_left_as_they_were"}, "gradients have other values after a step"),
    ("DecaysAfterTheBuffer", {"equals_its_reference_for_100_steps"},
     r"\[weight_decay=0.1\] it leaves its reference at step 2, in 4 of 5 tensors.*what is kept from step to step"),
    ("BeginsTheBufferAtZero", PATH | {"learns_to_tell_irises"},
     "at step 1, in 4 of 5 tensors.*the rule itself or a default"),
    ("ForgetsSlowly", PATH, r"at step 2, .* in that of shape \(7, 5\) by 2e-08"),
    ("ComputesInFloat32",
     (PATH | {"resume_equals_no_interruption"}) - {"complex_parameters_move_as_pairs_or_are_refused"},
     r"after 100 steps they are \d.\d?e-07 apart"),
    ("RemembersTheFirstRate", RATE, "after lr was set to 0 in every group parameters still move"),
    ("ReadsDefaultsForGroups", RATE, "two groups do not move as they do by themselves"),
    ("DecaysWhateverTheRate", PATH | {"a_learning_rate_of_zero_moves_nothing", "obeys_a_learning_rate_that_changes"},
     "with lr=0 parameters move"),
    ("TakesRatesThatAreFloats", {"a_learning_rate_may_be_a_tensor"}, "'Tensor' object has no attribute 'hex'"),
    ("SwallowsArguments", {"an_argument_that_does_not_exist_is_refused"}, "a misspelt hyperparameter would be ignored"),
    ("ChecksNothing", {"bad_values_are_refused_by_the_constructor"}, "lr=-1.0 was accepted"),
    ("MaximizesTheDecayToo", PATH | {"to_maximize_is_to_minimize_the_negative"},
     "maximize=True along −g leads elsewhere"),
    ("MovesWithoutGradients", {"a_parameter_without_gradient_is_left_alone"}, "a parameter without a gradient moved"),
    ("SpeaksOfSomethingElse", {"a_sparse_gradient_is_served_or_refused"},
     "KeyError: 'indices'; nothing about .* sparse"),
    ("StepsAroundItsHooks", {"closures_and_hooks_are_called"}, r"three steps called hooks as \[\]"),
    ("CallsTheClosureWithoutGradients", {"closures_and_hooks_are_called"}, "does not require grad"),
    ("KeepsTheLoss", {"closures_and_hooks_are_called"}, r"step\(closure\) gives None, not the loss"),
    ("LeavesGradientsOff", DOWN | {"gradients_of_the_user_are_not_switched_off"},
     "after a step gradients are off"),
    ("LaysParametersOut",
     {"strides_play_no_part", "gaps_in_memory_play_no_part", "channels_last_plays_no_part"},
     "parameters have other strides after the steps"),
    ("MovesCopiesOfWhatHasOtherStrides", {"strides_play_no_part", "channels_last_plays_no_part"},
     "parameters with other strides lead elsewhere"),
    ("RoundsToTheFirstDtype", {"dtypes_may_stand_side_by_side"}, "several dtypes in one group move otherwise"),
    ("WidensParameters", {"follows_float64_in_fewer_bits"}, r"\[bfloat16\] parameters have another dtype"),
    ("AddsAGroupBeforeItLooks", {"a_group_is_added_whole_or_not_at_all"}, "refused is there nevertheless"),
    ("RefusesAnEmptyCheckpoint", {"a_checkpoint_from_before_the_first_step_loads"}, "nothing was saved"),
    ("DropsNames", {"parameters_keep_their_names"}, "the checkpoint has param_names=None"),
    ("GoesUp", PATH | DOWN | {"closures_and_hooks_are_called"}, "the sum of 16 squares is .*; it was 64"),
]  # fmt: skip


def flat(report):
    """A report without its line breaks."""
    return re.sub(r"\s+", " ", str(report))


def test_nothing_is_wrong_with_momentum():
    report = check(case(Momentum))
    assert report.failing == []
    assert len({o.trial.check.name for o in report.of("holds")}) == 31


@pytest.mark.parametrize(("fault", "breaks", "message"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_a_fault_is_found_and_said(fault, breaks, message):
    with pytest.raises(Nonconforming) as found:
        check(case(getattr(strangers, fault)))
    assert set(found.value.report.failing) == breaks
    assert re.search(message, flat(found.value))


def test_a_path_over_lists_that_differs_is_found():
    report = examine(case(strangers.TakesAnotherPathOverLists))
    assert {"equals_its_reference_for_100_steps", "every_backend_takes_the_same_path"} <= set(report.failing)
    assert "[nesterov=True-float64-loop] 4 steps on foreach lead elsewhere than on loop" in flat(report)
    assert "[nesterov=True-foreach] it leaves its reference at step 1" in flat(report)


def test_a_count_for_all_is_found_without_a_reference():
    report = examine(case(strangers.CountsForAll, reference=None))
    assert set(report.failing) == KEPT | {"a_parameter_without_gradient_is_left_alone", "learns_to_tell_irises"}


def test_squares_of_complex_numbers_are_found_without_a_reference():
    report = examine(case(strangers.SquaresComplexNumbers, reference=None))
    assert report.failing == ["complex_parameters_move_as_pairs_or_are_refused"]
    assert "do not move as pairs do" in flat(report)


def test_what_refuses_complex_numbers_need_only_say_so():
    only = ["complex_parameters_move_as_pairs_or_are_refused"]
    assert "without an error" in flat(examine(case(Momentum, complex=False), only))

    def real(params, **given):
        if any(p.is_complex() for p in params):
            raise ValueError("real parameters only")
        return Momentum(params, **given)

    assert examine(case(real, complex=False), only)
    (outcome,) = examine(case(real), only).outcomes
    assert outcome.verdict == "not applicable"
    assert outcome.message == "it refuses complex parameters: real parameters only"


def test_an_exception_is_a_failure_that_names_it():
    report = examine(case(strangers.WantsRows), ["tensors_without_dimension_or_element_are_served"])
    assert "IndexError" in flat(report)
    assert not report


def test_a_hyperparameter_that_no_flag_sets_is_named():
    report = examine(Case(Momentum, torch.optim.SGD, [{"momentum": 0.5}]), ["every_hyperparameter_is_tried"])
    assert "no flags of the case set nesterov, weight_decay, maximize" in flat(report)


def test_every_check_but_those_of_thalweg_alone_has_found_a_fault():
    """A check that nothing here fails might be one that cannot."""
    elsewhere = {
        "has_the_property_that_it_claims",  # test_claims.py
        "every_hyperparameter_is_tried", "every_backend_takes_the_same_path",
        "tensors_without_dimension_or_element_are_served", "complex_parameters_move_as_pairs_or_are_refused",  # above
        "follows_full_precision_in_every_format", "resumes_in_every_format", "bad_values_in_a_group_are_refused",
        "checkpoints_cross_to_torch_and_back", "a_checkpoint_looks_like_that_of_torch",
        "arguments_have_the_order_and_defaults_of_torch", "a_group_that_is_added_later_is_like_one_from_the_start",
    }  # fmt: skip
    broken = {name for _, breaks, _ in FAULTS for name in breaks}
    assert {c.name for c in CHECKS} == broken | elsewhere

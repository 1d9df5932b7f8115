"""The loss over the run: it changes at given iterations, and a resumed run has the same one."""

import pytest
from basicsr.losses.basic_loss import CharbonnierLoss, L1Loss, MSELoss
from test_teacher import assert_resumed_exactly, build, losses

from bidiffsr_arch.config.file import check_file
from bidiffsr_arch.config.training import Train
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.training.option_check import check_options

SCHEDULE = [{"from_iter": 3, "type": "CharbonnierLoss", "eps": 1e-6}, {"from_iter": 5, "type": "L1Loss"}]


def test_each_iteration_has_the_loss_of_the_schedule(options):
    model = build(options, pixel_opt={"type": "MSELoss"}, loss_schedule=SCHEDULE)
    kinds = [type(model.losses.at(iteration)) for iteration in range(1, 7)]
    assert kinds == [MSELoss, MSELoss, CharbonnierLoss, CharbonnierLoss, L1Loss, L1Loss]
    assert model.losses.at(3).eps == 1e-6
    found = losses(model, 1, 6)
    assert losses(build(options, pixel_opt={"type": "MSELoss"}), 1, 3)[:2] == found[:2]
    assert losses(build(options, pixel_opt={"type": "MSELoss"}), 1, 3)[2] != found[2]
    only = build(options, pixel_opt={"type": "L1Loss"})
    assert type(only.losses.at(10**6)) is L1Loss


def test_a_resumed_training_goes_on_with_the_same_losses(options, tmp_path):
    train = dict(pixel_opt={"type": "MSELoss"}, loss_schedule=SCHEDULE)
    assert_resumed_exactly(options, train, tmp_path, stop=3, last=6)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([{"type": "L1Loss"}], "from_iter"),
        ([{"from_iter": 3}], "type"),
        ([{"from_iter": 0, "type": "L1Loss"}], "from_iter"),
        ([{"from_iter": 3, "type": "L1Loss"}] * 2, r"rising from_iter, got \[3, 3\]"),
        ([{"from_iter": 101, "type": "L1Loss"}], "at most total_iter 100, got 101, which is never reached"),
        ([{"from_iter": 3, "type": "L1Loss", "reduction": "none"}], "reduction: mean or sum, got none"),
    ],
)
def test_wrong_schedules_are_refused(options, schedule, message):
    with pytest.raises(InputError, match=message) as caught:
        Train.read(options["train"] | {"loss_schedule": schedule}, "options.yml", "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "L3Loss"}, "train: loss_schedule: type: .*L1Loss"),
        ({"type": "L1Loss", "weight": 2}, "unknown key 'weight' in train: loss_schedule:; did you mean 'loss_weight'"),
        ({"type": "CharbonnierLoss", "eps": "small"}, "train: loss_schedule: eps"),
    ],
)
def test_losses_are_held_against_their_signatures(run_options, change, message):
    run_options["train"]["loss_schedule"] = [{"from_iter": 2} | change]
    with pytest.raises(InputError, match=message):
        check_options(run_options, "options.yml", is_train=True)


def test_weights_that_stay_real_cannot_be_validated_packed(run_options):
    run_options["val"]["packed"] = True
    check_file(run_options, "options.yml", is_train=True)
    run_options["network_g"]["binarize"] = "activations"
    with pytest.raises(InputError, match="expected val: packed: false with network_g: binarize: activations"):
        check_file(run_options, "options.yml", is_train=True)


def test_basicsrs_own_model_would_not_read_them(run_options):
    run_options["model_type"] = "SRModel"
    check_file(run_options, "options.yml", is_train=True)
    run_options["train"] |= {"loss_schedule": [{"from_iter": 2, "type": "L1Loss"}], "grad_clip": 1.0}
    with pytest.raises(InputError, match="expected none of grad_clip, loss_schedule in train:, which SRModel does not"):
        check_file(run_options, "options.yml", is_train=True)

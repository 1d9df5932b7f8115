"""BasicSR's SRModel, trained and sampled by diffusion."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from bidiffsr_arch.binary import repeat_groups, set_progress
from bidiffsr_arch.config.file import BIDiffSRModelOptions, wrong_for_diffusion
from bidiffsr_arch.config.struct import one_line
from bidiffsr_arch.config.training import ObjectiveOptions
from bidiffsr_arch.diffusion.images import upsample
from bidiffsr_arch.diffusion.super_resolution import SuperResolution
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.networks import constructor_defaults, find_architecture, is_packed
from bidiffsr_arch.parameters import named_as_in, read_parameters
from bidiffsr_arch.training.fused import fused_argument
from bidiffsr_arch.training.group_parameters import GroupParameters
from bidiffsr_arch.training.loss_schedule import LossSchedule
from bidiffsr_arch.training.network_files import packed_for_test, set_and_log
from bidiffsr_arch.training.objective import Objective
from bidiffsr_arch.training.sample_order import DIFFUSION, NOISE_LEVEL, SampleIndex, sample_indices
from bidiffsr_arch.training.stepping import Stepping
from bidiffsr_arch.training.stopping import nonfinite_weights, refuse_divergence
from bidiffsr_arch.training.teacher import Distillation, Teacher
from bidiffsr_arch.training.timestep_weighting import TimestepWeighting
from bidiffsr_arch.training.validation import ValidatedSRModel


class BIDiffSRModel(ValidatedSRModel):
    """A SRModel that trains a network to denoise and super-resolves by sampling.

    The options that it adds to SRModel's are declared in `BIDiffSRModelOptions` and, under ``train``, in
    `ObjectiveOptions`. With ``val: packed: true``, or a packed file as ``path: pretrain_network_g``, inference is
    packed (`bidiffsr_arch.packed`).

    Raises:
        InputError: options are wrong or contradict each other.
    """

    packed: nn.Module | None = None
    sample_indices: Sequence[SampleIndex] = ()

    def __init__(self, opt: dict[str, Any]) -> None:
        self.options, self.train_options = options, train_options = _checked(opt)
        self.super_resolution = SuperResolution(options)
        self.diffusion = self.super_resolution.diffusion
        self.one_time = options.timestep_sampling == "batch"
        self.channels = opt["network_g"].get("out_channel", 3)
        self.any_noise_level = options.noise_level_sampling == "uniform"
        self.stepping = Stepping(train_options)
        self.timestep_weighting = TimestepWeighting(train_options.timestep_weighting, self.diffusion)
        if not opt["is_train"]:
            opt["path"].setdefault("param_key_g", "params_ema")
        super().__init__(opt)
        self.multiple = getattr(self.get_bare_model(self.net_g), "multiple", 1)

    def init_training_settings(self) -> None:
        """As BasicSR's; also builds the schedule of losses and loads the teachers that the options name."""
        super().init_training_settings()
        self.losses = LossSchedule(self.cri_pix, self.train_options.loss_schedule or (), self.device)
        distill, teacher = self.train_options.distill, self.train_options.teacher
        self.distillation = Distillation(distill, self.options.scale, self.device) if distill else None
        self.teacher = Teacher(teacher, self.options, self.device) if teacher else None

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """As BasicSR's, for all formats that `read_parameters` supports, and for packed files in tests.

        Of a packed file, `param_key` may be a quality, see `QUALITIES`. Training may begin with a network of fewer
        timestep groups, see `repeat_groups`.

        Raises:
            InputError: the file cannot be loaded or does not fit the network; the message has the first difference.
        """
        if is_packed(load_path):
            self.packed = packed_for_test(self, self.get_bare_model(net), load_path, param_key)
            return
        net = self.get_bare_model(net)
        parameters, found = read_parameters(load_path, param_key)
        parameters = named_as_in(net, parameters)
        if self.is_train and (groups := repeat_groups(net, parameters)):
            get_root_logger().info(f"{load_path}: banks of {groups[0]} timestep groups are repeated for {groups[1]}.")
        set_and_log(self, net, parameters, load_path, found, strict)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """As BasicSR's, after `Stepping.prepare` in training."""
        return super().model_to_device(self.stepping.prepare(net, self.device) if self.is_train else net)

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """As BasicSR's, with separate parameters for each timestep group, see `GroupParameters`, and fused on a CPU."""
        self.group_parameters = GroupParameters(self.get_bare_model(self.net_g))
        parameters = self.group_parameters.split(params)
        kwargs |= fused_argument(optim_type, parameters, kwargs)
        return super().get_optimizer(optim_type, parameters, lr, **kwargs)

    def further_states(self) -> dict[str, Any]:
        """What this model adds to a training state: the state of the gradient scaler."""
        return {"scaler": self.stepping.scaler.state_dict()}

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """As BasicSR's; the gradient scaler is restored, too."""
        optimizers = [self.group_parameters.split_state(state) for state in resume_state["optimizers"]]
        super().resume_training(resume_state | {"optimizers": optimizers})
        if self.stepping.scaler.is_enabled() and resume_state.get("scaler"):
            self.stepping.scaler.load_state_dict(resume_state["scaler"])

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """As BasicSR's, after checking that the last loss is finite.

        Raises:
            CheckFailed: it is not.
        """
        refuse_divergence(self)
        super().update_learning_rate(current_iter, warmup_iter)

    def save(self, epoch: int, current_iter: int) -> None:
        """As BasicSR's, after checking that the last loss and all weights are finite.

        Raises:
            CheckFailed: they are not; nothing is written then.
            InputError: the files cannot be written.
        """
        refuse_divergence(self, nonfinite_weights(self.get_bare_model(self.net_g)))
        super().save(epoch, current_iter)

    def model_ema(self, decay: float = 0.999) -> None:
        """Average parameters and buffers (BatchNorm's statistics among them); BasicSR averages parameters only."""
        super().model_ema(decay)
        source = dict(self.get_bare_model(self.net_g).named_buffers())
        for name, average in self.net_g_ema.named_buffers():
            if average.is_floating_point():
                average.lerp_(source[name], 1 - decay)
            else:
                average.copy_(source[name])

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take LQ (B, 3, h, w) and GT (B, 3, H, W) in [0, 1]; LQ is upsampled by ``scale`` unless it already has GT's
        size. Images of one channel (``color: y``) are repeated to the number of channels of the network."""
        super().feed_data(data)
        for name in ("lq", "gt"):
            image: Tensor | None = getattr(self, name, None)
            if image is not None and image.shape[1] == 1:
                setattr(self, name, image.repeat(1, self.channels, 1, 1))
        self.sample_indices = sample_indices(data)
        same_size = "gt" in data and self.lq.shape == self.gt.shape
        self.condition = self.lq if same_size else upsample(self.lq, self.opt["scale"])

    def optimize_parameters(self, current_iter: int) -> None:
        """One training step: add noise at a random timestep to each image, predict, compute the loss, update."""
        set_progress(self.net_g, (current_iter - 1) / self.opt["train"]["total_iter"])
        time, noise = self._draw(self.gt, current_iter)
        gt = self.gt if self.distillation is None else self.distillation.result(self.condition, noise)
        condition, gt = map(self.super_resolution.normalize, (self.condition, gt))
        x0 = self.super_resolution.to_x0(gt, condition)
        x_t, time, target = self.diffusion.training_sample(x0, noise, time, self._draw_between(x0, current_iter))

        inputs = [x_t, condition, time]
        if self.teacher is not None:
            target = self.teacher.blend(target, *inputs)
        self.group_parameters.begin(time)
        objective = Objective(self.losses.at(current_iter), self.cri_perceptual, self.super_resolution)
        terms = self.stepping.step(self.net_g, self.optimizer_g, objective, inputs, target, self.group_parameters)

        self.log_dict = self.reduce_loss_dict(OrderedDict(terms))
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)

    def _draw(self, x0: Tensor, current_iter: int) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) and noise like x0, which depend only on the seed and each sample's index in training."""
        times, noises = [], []
        for generator in self._generators(x0, current_iter, DIFFUSION):
            times.append(self.timestep_weighting.draw(generator))
            noises.append(torch.randn(x0.shape[1:], generator=generator, device=x0.device))
        return self._at_one_time(torch.cat(times)), torch.stack(noises)

    def _draw_between(self, x0: Tensor, current_iter: int) -> Tensor | None:
        """Random fractions (B,) between a timestep's noise level and the one before; None for discrete levels."""
        if not self.any_noise_level:
            return None
        drawn = [torch.rand(1, generator=generator, device=x0.device)
                 for generator in self._generators(x0, current_iter, NOISE_LEVEL)]  # fmt: skip
        return self._at_one_time(torch.cat(drawn))

    def _at_one_time(self, drawn: Tensor) -> Tensor:
        return drawn[:1].expand(len(drawn)) if self.one_time else drawn

    def _generators(self, x0: Tensor, current_iter: int, purpose: int) -> Iterator[torch.Generator]:
        """A generator for each sample.

        Samples without an index (see `sample_indices`) are counted from the first iteration on, as in one long epoch.
        """
        processes, rank = self.opt["world_size"], self.opt["rank"]
        first = (current_iter - 1) * len(x0)
        counted = [SampleIndex(0, (first + number) * processes + rank) for number in range(len(x0))]
        for index in self.sample_indices or counted:
            yield torch.Generator(x0.device).manual_seed(index.seed(purpose, self.opt["manual_seed"]))

    def super_resolve(self) -> Tensor:
        """Sample (B, 3, H, W) in [0, 1] for self.condition; every image starts from the noise of ``manual_seed``."""
        network = self.packed or self._trained_network()
        was_training = network.training
        network.eval()
        result = self.super_resolution.sample(
            network,
            self.condition,
            [self.opt["manual_seed"]] * len(self.condition),
            multiple=self.multiple,
            progress_bar=self.opt["val"].get("pbar", False),
        )
        network.train(was_training)
        return result

    def validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False) -> None:
        """As BasicSR's, with packed inference if ``val: packed`` is true."""
        if self.packed is not None or not self.opt["val"].get("packed"):
            super().validation(dataloader, current_iter, tb_logger, save_img)
            return
        from bidiffsr_arch.packed import pack

        self.packed = pack(self._trained_network())
        super().validation(dataloader, current_iter, tb_logger, save_img)
        self.packed = None

    def _trained_network(self) -> nn.Module:
        """The EMA of the network if there is one, else the network; without wrappers."""
        return self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)


def _checked(opt: dict[str, Any]) -> tuple[BIDiffSRModelOptions, ObjectiveOptions]:
    """The options that the model itself reads: those at the top level, and those in ``train``, which tests ignore."""
    options = BIDiffSRModelOptions.part_of(opt)
    train = ObjectiveOptions.part_of(opt["train"], place="train") if opt["is_train"] else None
    groups = constructor_defaults(find_architecture(opt["network_g"].get("type"))).get("dynamic_group", 1)
    if wrong := list(wrong_for_diffusion(options, {"dynamic_group": groups, **opt["network_g"]}, train)):
        raise InputError(one_line(wrong, ""))
    return options, train or ObjectiveOptions()

"""Figures of single layers: activations over timesteps, ranges around a channel shuffle, biases per timestep group."""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bidiffsr_arch.archs.fusion import CSFusion
from bidiffsr_arch.binary import BinaryConv2d
from bidiffsr_arch.errors import InputError
from bidiffsr_arch.plots.probe import Probe, layer_of, recorded_inputs

MAX_VALUES = 20_000  # of a layer's values per distribution, picked at even intervals
TIMES = 9
WHISKERS = (0.05, 0.95)


def activations(probe: Probe, layer: str | None = None) -> Figure:
    """Distribution of a 1-bit convolution's input at timesteps from 0 to T - 1 (the paper's Figure 4).

    Args:
        layer: name of a BinaryConv2d; if None, the one halfway through the network.
    Raises:
        InputError: no such layer.
    """
    name, module = layer_of(probe.network, BinaryConv2d, layer)
    times, values = probe.timesteps(TIMES), []
    with recorded_inputs({name: module}) as inputs_of:
        for time in times:
            probe.run(time)
            values.append(_some(inputs_of[name][0]))
    figure = Figure((8, 4.5), layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(np.concatenate(values), (0.001, 0.999))
    shown = [column[(column >= low) & (column <= high)] for column in values]
    axes.violinplot(shown, times, widths=0.8 * (times[1] - times[0]), showextrema=False)
    axes.plot(times, [np.median(column) for column in values], "o-", color="tab:red", label="median")
    for quantile in WHISKERS:
        label = f"{WHISKERS[0]:.0%} and {WHISKERS[1]:.0%} quantile" if quantile == WHISKERS[0] else None
        axes.plot(times, [np.quantile(column, quantile) for column in values], "--", color="0.4", label=label)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(title=f"Input of {name}, before its bias and sign", xlabel="timestep t (0: clean, the last: noise)",
             ylabel="activation (no unit)", xticks=times)  # fmt: skip
    axes.legend()
    return figure


def shuffle_ranges(probe: Probe, layer: str | None = None) -> Figure:
    """Range of each channel before and after the channel shuffle of a skip connection (the paper's Figure 6).

    Args:
        layer: name of a CSFusion; if None, the one halfway through the decoder.
    Raises:
        InputError: no such layer.
    """
    name, module = layer_of(probe.network, CSFusion, layer)
    time = probe.process.diffusion.total_step // 2
    parts = {name: module, "1": module.get_submodule("biconv_1"), "2": module.get_submodule("biconv_2")}
    with recorded_inputs(parts) as inputs_of:
        probe.run(time)
    decoder, skip = inputs_of[name]
    panels = [
        ("Before the shuffle: inputs of the fusion", {"decoder": decoder, "skip": skip}),
        ("After the shuffle: inputs of the convolutions", {"first": inputs_of["1"][0], "second": inputs_of["2"][0]}),
    ]
    figure = Figure((10, 4.5), layout="constrained")
    figure.suptitle(f"Channel shuffle in {name} at t = {time}")
    for axes, (title, inputs) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        spreads = []
        for index, (label, values) in enumerate(inputs.items()):
            low, high = (values.amin((0, 2, 3)).cpu(), values.amax((0, 2, 3)).cpu())
            channel = np.arange(len(low)) + index * (len(low) + 1)
            axes.vlines(channel, low, high, color=f"C{index}", linewidth=2, label=label)
            spreads.append((high - low).mean().item())
        ratio = max(spreads) / min(spreads)
        axes.set(title=f"{title}\nmean range {spreads[0]:.2f} and {spreads[1]:.2f}, ratio {ratio:.2f}",
                 xlabel="channel (of one input, then of the other)", ylabel="minimum to maximum (no unit)")  # fmt: skip
        axes.axhline(0, color="black", linewidth=0.5)
        axes.legend()
    return figure


def timestep_biases(network: torch.nn.Module, layer: str | None = None) -> Figure:
    """The K biases before the sign of a 1-bit convolution, one per timestep group (the paper's Figure 7).

    Args:
        layer: name of a BinaryConv2d; if None, the one halfway through the network.
    Raises:
        InputError: no such layer, or a layer without biases.
    """
    name, module = layer_of(network, BinaryConv2d, layer)
    state = module.state_dict()
    biases = [value.flatten().numpy() for key, value in state.items() if key.startswith("TaR.dynamic_move_")]
    if not biases:
        raise InputError(f"expected a layer with a bias before its sign, got {name}, whose binarizer has none")
    figure = Figure((10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    limit = max(np.abs(bias).max() for bias in biases) or 1.0
    image = left.imshow(biases, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    left.set(title=f"Biases of {name}", xlabel="channel", ylabel="timestep group k (0: little noise)",
             yticks=range(len(biases)))  # fmt: skip
    figure.colorbar(image, ax=left, label="bias b_k (no unit)")
    right.violinplot([bias.tolist() for bias in biases], range(len(biases)), showmedians=True)
    right.set(title="Their distributions over channels", xlabel="timestep group k", ylabel="bias b_k (no unit)",
              xticks=range(len(biases)))  # fmt: skip
    right.axhline(0, color="black", linewidth=0.5)
    right.yaxis.tick_right()  # else its numbers overlap the colour bar's
    right.yaxis.set_label_position("right")
    return figure


def _some(values: Tensor) -> np.ndarray:
    flat = values.flatten()
    return flat[:: max(1, len(flat) // MAX_VALUES)].float().cpu().numpy()

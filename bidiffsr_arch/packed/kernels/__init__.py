"""Numba kernels of packed inference and of training, written in LLVM's vector types.

- `vector_ir`, `places`: vectors, and addresses as kernels pass them; `compile`: how kernels are compiled and cached.
- `binary_conv`: the 1-bit convolution; `signs` packs signs into bits, `bit_rows` says how they are laid out, `popcount`
  and `lookup` count them, `epilogue` turns counts into results.
- `winograd` (with `winograd_transforms`), `pointwise`: full-precision 3x3 and 1x1 convolutions, by `gemm`, which
  prefetches by itself; `prefetch` does it for the 1-bit convolution.
- `norm`, `rearrange`: GroupNorm; moves of channels.
- `planes`: the 1-bit convolution of training.
"""

__all__ = [
    "binary_conv", "bit_rows", "compile", "epilogue", "gemm", "lookup", "norm", "places", "planes", "pointwise",
    "popcount", "prefetch", "rearrange", "signs", "vector_ir", "winograd", "winograd_transforms",
]  # fmt: skip

"""Numba kernels of packed inference and of training, written in LLVM's vector types.

- `vector_ir`: vector instructions; `places`: addresses and strides; `numba_without_scipy`: how Numba is imported;
  `compile`: how kernels are compiled and cached; `split`: how their loops run on threads.
- `binary_conv`: the 1-bit convolution; `signs` packs signs into bits, `bit_rows` describes their layout, `popcount` and
  `lookup` count them, `epilogue` turns counts into results, `prefetch` prefetches maps.
- `winograd` (with `winograd_transforms`), `pointwise`: full-precision 3x3 and 1x1 convolutions; `gemm`: their matrix
  products.
- `norm`: GroupNorm; `rearrange`: permutations of channels.
- Training: `planes`, the 1-bit convolution; `batch_winograd` (with `batch_winograd_transforms`, `strided_gemm`), the
  full-precision one, and gradients of both.
"""

from bidiffsr_arch.packed.kernels import numba_without_scipy as numba_without_scipy

__all__ = [
    "batch_winograd", "batch_winograd_transforms", "binary_conv", "bit_rows", "compile", "epilogue",
    "gemm", "lookup", "norm", "places", "planes", "pointwise", "popcount", "prefetch", "rearrange", "signs", "split",
    "strided_gemm", "vector_ir", "winograd", "winograd_transforms",
]  # fmt: skip

"""Numba kernels of packed inference and of training, written in LLVM's vector types.

- `vector_ir`, `places`: vectors, and addresses as kernels pass them; `compile`: how kernels are compiled and kept. -
`binary_conv`: the 1-bit convolution; `signs` makes bits, `bit_rows` says where they lie, `popcount` and `lookup` count
  them, `epilogue` makes results of the counts.
- `winograd`, `pointwise`: full-precision 3x3 and 1x1 convolutions, by `gemm`. `prefetch` is shared by all of these.
- `norm`, `rearrange`: GroupNorm; moves of channels.
- `planes`: the 1-bit convolution of training.
"""

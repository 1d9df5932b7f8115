"""Images for training and tests: MATLAB-exact resizing, and what `basicsr data` prepares.

`resize` is MATLAB's imresize; `demo`, `pairs`, `subimages` and `lmdb` write data sets; `strip` lays out images side by
side.
"""

__all__ = ["demo", "lmdb", "pairs", "parallel", "resize", "strip", "subimages"]

"""Images for training and tests: MATLAB-exact resizing, and what `basicsr data` prepares.

`resize` is MATLAB's imresize; `demo`, `pairs`, `subimages` (with `cut`) and `lmdb` (with `lmdb_list`) write data sets;
`strip` lays out images side by side.
"""

__all__ = ["cut", "demo", "lmdb", "lmdb_list", "pairs", "parallel", "resize", "strip", "subimages"]

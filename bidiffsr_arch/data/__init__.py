"""Images to train and test on: MATLAB-exact resizing, the paired data set, and what `basicsr data` prepares.

`resize` is MATLAB's imresize, `demo`, `pairs`, `subimages` and `lmdb` write data sets, `strip` lays out images side by
side, `paired_dataset` is BasicSR's data set under the reference's name.
"""

__all__ = ["demo", "lmdb", "paired_dataset", "pairs", "parallel", "resize", "strip", "subimages"]

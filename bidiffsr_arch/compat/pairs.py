"""Patches of the search for image pairs: several folders, and databases whose names differ by a suffix."""

from basicsr.data import data_util

from bidiffsr_arch.compat.patch import contains, replace
from bidiffsr_arch.data.lmdb_list import META, is_database, key_of, lines_in
from bidiffsr_arch.errors import InputError

Pairs = list[dict[str, str]]


def several_folders() -> bool:
    """A data set had one folder of GT and one of LQ: lists of equally many folders are read one after the other."""
    inner = data_util.paired_paths_from_folder
    if contains(inner, "isinstance(input_folder, list)"):
        return False

    def paired_paths_from_folder(folders: list[str | list[str]], keys: list[str], filename_tmpl: str) -> Pairs:
        if not any(isinstance(folder, list) for folder in folders):
            return inner(folders, keys, filename_tmpl)
        if not all(isinstance(folder, list) for folder in folders) or len(folders[0]) != len(folders[1]):
            raise InputError(f"expected as many folders of LQ as of GT, got {folders[0]} and {folders[1]}")
        return [pair for both in zip(*folders, strict=True) for pair in inner(list(both), keys, filename_tmpl)]

    replace(inner, paired_paths_from_folder)
    return True


def suffixed_databases() -> bool:
    """LQ and GT had to have equal names in a database, and other folders raised an assertion: LQ's names may have a
    common suffix, and the error names the folder."""
    stock = data_util.paired_paths_from_lmdb
    if contains(stock, "suffix"):
        return False

    def paired_paths_from_lmdb(folders: list[str], keys: list[str]) -> Pairs:
        lq, gt = (_names(folder, key) for folder, key in zip(folders, keys, strict=True))
        suffix = next((name.removeprefix(gt[0]) for name in lq if _is_suffix(name, gt, lq)), None) if gt else ""
        if suffix is None:
            raise InputError(
                f"expected in {folders[0]} the names of {folders[1]}, all with the same suffix or none; "
                f"got {', '.join(lq[:3])} for {', '.join(gt[:3])}"
            )
        return [{f"{keys[0]}_path": f"{name}{suffix}", f"{keys[1]}_path": name} for name in gt]

    replace(stock, paired_paths_from_lmdb)
    return True


def _names(folder: str, key: str) -> list[str]:
    if not is_database(folder):
        raise InputError(f"expected dataroot_{key} to be a database NAME.lmdb with its {META}, got {folder}")
    return sorted({key_of(line) for line in lines_in(folder) if line.strip()})


def _is_suffix(name: str, gt: list[str], lq: list[str]) -> bool:
    """Whether all LQ names are the GT names plus the suffix by which this LQ name extends the first GT name."""
    more = name.removeprefix(gt[0])
    return name.startswith(gt[0]) and {f"{one}{more}" for one in gt} == {*lq}

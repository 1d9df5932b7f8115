"""The shipped option files; this folder is installed as `bidiffsr_arch.options`."""

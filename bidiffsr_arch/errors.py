"""The two ways in which a command can end badly without being at fault itself."""


class InputError(ValueError):
    """Something given by the user is wrong; the message is one line: expected, got, what to do. Exit status 2."""


class CheckFailed(RuntimeError):
    """A check that the user asked for did not hold; the message is one line. Exit status 1."""

"""Failures that a user can fix. The message of each is one sentence that says what failed, where, and the fix."""


class MnemoError(Exception):
    """The work failed. The command line prints the message and exits with 1."""

    exit_code = 1


class UsageError(MnemoError):
    """The call was wrong. The command line prints the message and exits with 2."""

    exit_code = 2


class MissingExtraError(MnemoError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"{package} is not installed; run: pip install 'mnemo-compile[{extra}]'")

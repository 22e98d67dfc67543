"""The errors that an operator sees; each knows its exit code and the next command to try.

OperatorError
├── BadInput          2  a file, a name or an argument that cannot be used
├── NotRunning        3  something that must run does not answer
├── BadConfiguration  4  a setting that is wrong or missing
├── TimedOut          5  it ran, and did not finish in time
└── Unsafe            6  refused, because it could do harm
"""


class OperatorError(Exception):
    """Something went wrong that a person has to look at."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            # So that a log or a page that shows the error shows what to do, too.
            self.add_note(hint)


class BadInput(OperatorError):
    """A file, a name or an argument cannot be used as it stands."""

    exit_code = 2


class NotRunning(OperatorError):
    """Something that must run does not answer."""

    exit_code = 3


class BadConfiguration(OperatorError):
    """A setting is wrong or missing."""

    exit_code = 4


class TimedOut(OperatorError):
    """It started, and did not finish in time."""

    exit_code = 5


class Unsafe(OperatorError):
    """Refused, because it could do harm."""

    exit_code = 6

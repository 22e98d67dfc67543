"""Who does something: the one place that tells."""

import getpass
import os

from ops_pipeline.clients.aws import caller
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.settings import Settings


def operator(settings: Settings) -> str:
    """The user of this machine; where settings are kept on AWS, the identity that it knows."""
    if settings.ssm_parameter:
        try:
            return caller(settings.aws_region)
        except OperatorError:
            # Whoever must act while AWS does not answer is still told by this machine.
            return f"{machine_user()} (AWS does not tell)"
    return machine_user()


def machine_user() -> str:
    """The user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under an id that has no name.
        return f"uid {os.getuid()}"

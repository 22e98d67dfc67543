"""SSM and STS on this machine, as moto plays them, over HTTP."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAME = "/ops-pipeline/dispatcher_config"
REGION = "us-west-2"
SOMEBODY = "arn:aws:iam::123456789012:user/somebody"


@contextmanager
def aws() -> Iterator[pytest.MonkeyPatch]:
    """A server that holds nothing, and an environment that leads to it."""
    from moto.server import ThreadedMotoServer
    from moto.ssm.models import Parameter

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        plain = Parameter.describe_response_object

        def with_user(self: Parameter, *words: object, **named: object) -> dict[str, object]:
            # Moto knows no users; SSM names the one who wrote it last.
            return {**plain(self, *words, **named), "LastModifiedUser": SOMEBODY}

        patch.setattr(Parameter, "describe_response_object", with_user)
        try:
            yield patch
        finally:
            server.stop()


def put_by_hand(text: str) -> None:
    """What the runbook does: aws ssm put-parameter --overwrite."""
    import boto3

    client = boto3.client("ssm", region_name=REGION)
    client.put_parameter(Name=NAME, Value=text, Type="String", Overwrite=True)


def forget() -> None:
    """Let the server hold nothing again."""
    import boto3

    client = boto3.client("ssm", region_name=REGION)
    client.delete_parameters(Names=[NAME])

"""What is kept on AWS: one parameter of its Systems Manager, and who we are there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ops_pipeline.domain.errors import BadConfiguration, NotRunning
from ops_pipeline.domain.thresholds import visible
from ops_pipeline.settings import Settings

TIMEOUT_SECONDS = 3
UNKNOWN = "unknown to SSM"


@dataclass(frozen=True)
class SsmParameter:
    """One parameter, read and written whole; the keys are those of the AWS command."""

    name: str
    region: str

    def read(self) -> str | None:
        """Its text; None where there is no such parameter.

        Raises:
            NotRunning: SSM does not answer, or refuses.
            BadConfiguration: the library is not installed, or knows no region.
        """
        with _asked("ssm", self.region) as client:
            try:
                found = client.get_parameter(Name=self.name, WithDecryption=True)
            except client.exceptions.ParameterNotFound:
                return None
            return str(found["Parameter"]["Value"])

    def changed_by(self) -> str:
        """Who wrote it last, as IAM names them; it needs a permission that reading does not."""
        wanted = [{"Key": "Name", "Option": "Equals", "Values": [self.name]}]
        try:
            with _asked("ssm", self.region) as client:
                found = client.describe_parameters(ParameterFilters=wanted)["Parameters"]
        except NotRunning:
            return UNKNOWN
        return visible(str(found[0].get("LastModifiedUser", UNKNOWN)), 200) if found else UNKNOWN

    def write(self, text: str) -> None:
        """Replace it.

        Raises:
            NotRunning: SSM does not answer, or refuses.
            BadConfiguration: the library is not installed, or knows no region.
        """
        with _asked("ssm", self.region) as client:
            client.put_parameter(Name=self.name, Value=text, Type="String", Overwrite=True)


def parameter_of(settings: Settings) -> SsmParameter | None:
    """The parameter that settings are taken from as well; None where the database stands alone."""
    if not settings.ssm_parameter:
        return None
    return SsmParameter(settings.ssm_parameter, settings.aws_region)


def caller(region: str) -> str:
    """Who we are to AWS: the ARN of a user or of an assumed role.

    Raises:
        NotRunning: AWS does not answer, or refuses.
        BadConfiguration: the library is not installed, or knows no region.
    """
    with _asked("sts", region) as client:
        return str(client.get_caller_identity()["Arn"])


@contextmanager
def _asked(service: str, region: str) -> Iterator[Any]:
    """A client for a moment; what goes wrong is one line, without what was sent."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, NoRegionError
    except ImportError:
        raise BadConfiguration(
            "OPS_SSM_PARAMETER needs boto3", "run: pip install 'ops-pipeline[aws]'"
        ) from None
    patience = Config(
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        retries={"total_max_attempts": 2},
    )
    try:
        yield boto3.client(service, region_name=region or None, config=patience)
    except NoRegionError:
        raise BadConfiguration("AWS has no region", "set AWS_REGION") from None
    except ClientError as error:
        code = visible(str(error.response.get("Error", {}).get("Code", "refused")), 80)
        raise NotRunning(
            f"{service.upper()} refuses: {code}", "try: aws sts get-caller-identity"
        ) from None
    except BotoCoreError as error:
        raise NotRunning(
            f"{service.upper()} does not answer: {type(error).__name__}",
            "try: aws sts get-caller-identity",
        ) from None

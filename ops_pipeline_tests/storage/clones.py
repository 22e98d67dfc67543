"""Databases that several tests share: made once, and gone with the session's server."""

from dataclasses import replace

import psycopg
from psycopg import sql

from ops_pipeline.settings import Settings


def clone(template: Settings, base_name: str) -> Settings:
    """Settings of a new clone of the template."""
    owner = template.server
    assert owner is not None
    own = replace(template, server=replace(owner, base_name=base_name))
    names = [sql.Identifier(name) for name in (own.pipeline_database, template.pipeline_database)]
    with psycopg.connect(
        host=owner.host,
        port=owner.port,
        user=owner.user,
        password=owner.password,
        dbname="postgres",
        autocommit=True,
    ) as administrator:
        administrator.execute(sql.SQL("create database {} template {}").format(*names))
    return own

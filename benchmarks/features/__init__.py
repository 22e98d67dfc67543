"""The feature layer twice more, in pandas and in DuckDB: what bench features measures dbt with."""

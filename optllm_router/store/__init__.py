"""The SQL log: its contract (`base`), tables, queries, migrations and background writes."""

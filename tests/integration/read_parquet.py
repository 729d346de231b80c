"""Prints every row of the Parquet files below a folder as a line of JSON, as DuckDB reads them."""

import json
import sys

import duckdb

folder = sys.argv[1]
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
relation = connection.sql(f"SELECT * FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = false)")
columns = []
for name, kind in zip(relation.columns, relation.types):
    # A timestamp is compared as its number.
    columns.append(f"epoch_us({name}) AS {name}" if "TIMESTAMP" in str(kind) else name)
query = f"SELECT {', '.join(columns)} FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = false)"
result = connection.execute(query)
names = [column[0] for column in result.description]
for row in result.fetchall():
    print(json.dumps(dict(zip(names, row))))

"""Prints the rows of Parquet files as JSON, one row a line, in the order of trace and start.

    python read.py [--where CONDITION] [--columns a,b,c] PATH...

A PATH is a file, or a folder of files below date=.../hour=...; the partitions become columns. Needs duckdb from PyPI.
"""

import argparse
import os
import sys

import duckdb


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--where", default="true", help="a condition in SQL")
    parser.add_argument("--columns", default="*", help="what to select, in SQL")
    parser.add_argument("paths", nargs="+")
    return parser.parse_args()


def files(path):
    return os.path.join(path, "**", "*.parquet") if os.path.isdir(path) else path


def main():
    given = arguments()
    paths = [files(path) for path in given.paths]
    query = f"""
        SELECT to_json(rows) FROM (
            SELECT {given.columns}
            FROM read_parquet({paths!r}, hive_partitioning = true, hive_types_autocast = false)
            WHERE {given.where}
            ORDER BY trace_id, start_time_unix_nano, span_id
        ) rows
    """
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    rows = connection.execute(query)
    while batch := rows.fetchmany(1000):
        for (row,) in batch:
            print(row)


if __name__ == "__main__":
    sys.exit(main())

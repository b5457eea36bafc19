"""The figures that Tollgate promises, each measured against a reference in the same run.

    make bench                      all of them
    make bench ARGS="reading"       one section: reading, database, http

Every figure is printed as `name: value unit (goal …)` and written to `benchmarks/latest.json`. Ratios are judged; absolute
figures stand beside them and depend on the machine. PostgreSQL runs with fsync and synchronous_commit on.

Owns: how the figures are measured. Does not own: anything that runs in production.
"""

"""`python -m tests.upstream [port]`: the double as a process of its own, for trying things out by hand."""

import sys

import uvicorn

from tests.upstream.double import Double

if __name__ == "__main__":
    uvicorn.run(Double(), host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8006)

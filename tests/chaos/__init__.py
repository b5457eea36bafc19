"""Kill tests: processes, connections and clocks fail at random points, and the books must agree afterwards."""

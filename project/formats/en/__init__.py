"""One language; days and instants as in ISO 8601, in UTC."""

"""A package, so that processes which tests start find it before those of other libraries."""

"""A world of byte-faithful uploads, for the demo and the tests."""

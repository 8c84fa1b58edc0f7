"""A shop whose memoized functions are on the docs' pictures of the admin."""

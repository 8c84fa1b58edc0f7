"""Which call is it? Keys and tags, made of arguments. Imports nothing else of ours."""

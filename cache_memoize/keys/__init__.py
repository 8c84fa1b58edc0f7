"""Keys and tags, made of the arguments of calls. Imports nothing else of ours."""

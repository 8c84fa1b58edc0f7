"""What ``manage.py memoize`` is made of."""

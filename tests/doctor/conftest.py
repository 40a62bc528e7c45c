"""The store's fixtures: it is examined on both databases."""
from tests.store.conftest import business, database, postgresql, url  # noqa: F401

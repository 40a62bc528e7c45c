"""Runs the steps on the connection that `upgrade` holds."""
from alembic import context

from machikoba.store.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata, transactional_ddl=True,
                  compare_type=True)
context.run_migrations()

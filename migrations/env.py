"""Alembic's entry: run the revisions on the connection that `store.schema` hands over.

There is no offline mode and no `alembic.ini`: the schema is changed by opening a SQLite log, by
`optllm db upgrade`, or in code by `optllm_router.store.schema`, which holds the transaction.
"""

from alembic import context

from optllm_router.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,  # both databases roll a half-done migration back
)
with context.begin_transaction():
    context.run_migrations()

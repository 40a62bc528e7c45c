"""Is this installation well, and if not, what to do? It reads, writes one file that it takes away again, and contacts nobody
but this machine, the store, and the public name that it is given."""

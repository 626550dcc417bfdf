"""The services behind the edge: one folder each, and `runtime`, which all of them run on."""

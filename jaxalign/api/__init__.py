"""The Python interface: `jaxalign.<name>` imports from here what is asked for, and not before."""

"""A real multi-node Linux on any machine: image, topologies, and a handle on a booted guest."""

"""The page of a node: its files, and the state of the swarm as it changes."""

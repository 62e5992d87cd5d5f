"""Pictures of agents, data and toys."""

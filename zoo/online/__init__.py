"""Online after offline: what becomes of the score when an agent that was trained on data goes on in the environment."""

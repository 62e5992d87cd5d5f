"""The worked example of a page of its own: a made-up log of insulin doses, and what to do with such a log."""

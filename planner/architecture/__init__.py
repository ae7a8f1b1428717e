"""A model as arithmetic: config.json -> layers -> weight matrices, parameters, state per token."""

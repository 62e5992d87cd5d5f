"""Arguments of SB3's off-policy algorithms that do not apply here, and why."""

REFUSED = {
    "use_sde_at_warmup": "state-dependent exploration is not built.",
    "sde_sample_freq": "state-dependent exploration is not built.",
    "sde_support": "state-dependent exploration is not built.",
    "monitor_wrapper": "an environment without a Monitor gets one; wrap it yourself for another.",
    "support_multi_env": "several environments are always supported.",
    "supported_action_spaces": "actions are those of a bounded Box.",
    "replay_buffer_class": "the buffer holds the dataset's rows beside the online ones, and no other does.",
    "replay_buffer_kwargs": "the buffer holds the dataset's rows beside the online ones, and no other does.",
    "optimize_memory_usage": "rows of a dataset need not follow each other, so next observations are stored.",
    "n_steps": "targets are the papers', of one step.",
    "use_sde": "state-dependent exploration is not built.",
    "profile": "profiles belong to the command line (`train --profile`); pass their values, which are in the algorithm's "
    "hyperparameters.yml, as arguments.",
}

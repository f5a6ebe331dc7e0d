"""The subcommands of `trunkline`, one file each."""

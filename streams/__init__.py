"""Everything that runs: Faust apps, broker, store, command line."""

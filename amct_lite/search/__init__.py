"""The search: options with bytes and error, one path from smallest to float, few probes, a journal of every trial."""

"""Volume providers: where the block device of a volume pool comes from, one module for each."""

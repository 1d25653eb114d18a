"""Where mail is kept: the queue, the event log, the counters and the group commit."""

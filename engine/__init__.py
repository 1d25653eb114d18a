"""Tasks, time, sockets and disk. No bytes are parsed here; that is `protocols`."""

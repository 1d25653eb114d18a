"""Mail goes out: scheduler, destination actors, limits, resolver, connections, disposition."""

"""Every fact, in one durable log, with a position; handed out live and replayed from any position."""

"""What people and machines see: metrics, control socket, status, logs, sd_notify."""

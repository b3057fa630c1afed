"""The only room that opens /proc, /sys or cgroupfs, or makes a system call."""

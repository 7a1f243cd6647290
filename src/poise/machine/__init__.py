"""What touches the machine: bytes on disk, locks, threads, processes; each whole or not at all."""

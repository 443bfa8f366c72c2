//! Test support: real servers as child processes, a byte-level client, and the exact history checker.

//! Compares servers side by side: CPU, instructions, system calls and resident bytes per operation.

fn main() {}

//! Parses, runs, picks the exit code.

fn main() {}

//! The `ulvs` command.

fn main() {}

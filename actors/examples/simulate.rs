//! Simulate: stub.

fn main() {}

//! The binary `mishkah`.
fn main() {}

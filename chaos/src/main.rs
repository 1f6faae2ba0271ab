//! The program `mishkah-chaos`.

fn main() {}

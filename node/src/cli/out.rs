//! Out: the only lines of the program that print.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these functions are how the command line speaks"
)]

use std::fmt::Display;

/// A line of the answer.
pub(super) fn line(text: impl Display) {
    println!("{text}");
}

/// A line about the answer: a warning, a sign of progress.
pub(super) fn note(text: impl Display) {
    eprintln!("{text}");
}

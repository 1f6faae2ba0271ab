//! Out: the only lines of the program that print.
//!
//! Promise: a reader that leaves (`mishkah status | head -1`) ends the output without a word, and
//! never the exit code: that is the one of a whole answer, because whether a short answer meets the
//! closed pipe is a matter of chance. Output that is lost for another reason, such as a full disk,
//! is a failure and said as one.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// Why the output stopped. Nothing is printed after that.
static STOPPED: Mutex<Option<(ErrorKind, String)>> = Mutex::new(None);

/// A line of the answer.
pub(super) fn line(text: impl Display) {
    let mut stopped = STOPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if stopped.is_some() {
        return;
    }
    let mut output = std::io::stdout().lock();
    // Each line is there at once: others may wait for it.
    if let Err(error) = writeln!(output, "{text}").and_then(|()| output.flush()) {
        *stopped = Some((error.kind(), error.to_string()));
    }
}

/// A line about the answer: a warning, a sign of progress. Where nobody reads them, nobody is told.
pub(super) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether nobody reads the answer any more.
pub(super) fn is_closed() -> bool {
    STOPPED.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Why the answer was not printed whole, unless its reader simply left.
pub(super) fn failure() -> Option<String> {
    let stopped = STOPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let (kind, reason) = stopped.as_ref()?;
    (*kind != ErrorKind::BrokenPipe).then(|| format!("the answer cannot be written: {reason}"))
}

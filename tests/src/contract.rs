//! Contract: recordings of a server played against nodes, and every difference listed.
//!
//! A recording says what was asked and what was answered, over HTTP and over sockets. It is played
//! in order against real nodes; status, error code, members, types and values are compared.
//! What cannot be alike (times, made-up ids, numbers of an earlier state) is bound where it is
//! first met and held to that from then on. What may differ stands in one table, in
//! `docs/protocol.md`, each row with the rule that allows it; a row that matches nothing is as
//! wrong as a difference without a row.
//!
//! - [`recording`]: the files, and the order they are played in;
//! - [`play`]: what is sent where; [`wire`]: the sockets and calls under it;
//! - [`compare`]: two answers side by side; [`names`]: which of their names mean the same;
//!   [`slack`]: what is compared by its type alone, and what a new answer may have more;
//! - [`keep`]: our own answers in the form of a recording;
//! - [`deviations`]: the table; [`verdict`]: the figures and the list of what is left to do.

pub mod compare;
pub mod deviations;
pub mod keep;
pub mod names;
pub mod play;
pub mod recording;
pub mod slack;
pub mod verdict;
pub mod wire;

//! The storm: what clients do, what goes wrong, and an oracle that judges what may be seen.
//!
//! Nothing lives here yet but this header; the scenarios, the nemesis and the oracle follow in their own change.

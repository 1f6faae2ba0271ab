//! The storm: what clients do, what goes wrong, and an oracle that judges what may be seen.
//!
//! Nothing lives here yet but this header. The workload, the nemesis, the oracle and one file per
//! property follow in a change of their own; until then `tests/faults` holds the drills that kill
//! nodes and cut their power.

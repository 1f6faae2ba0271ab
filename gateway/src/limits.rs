//! Every bound of this room, in one table, with units and reasons.

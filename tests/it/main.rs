//! One binary for every story told against real nodes.

//! One binary for every story told against real nodes, and for the manners of the house.

mod tidy;

//! Procedures: those of the original's clients, for the program that puts a node together.

use std::sync::Arc;

use model::Procedures;

use crate::orders::OrdersProcedure;

/// The stored procedures of the original's clients, for a
/// [`Partition`](model::Partition::new).
pub fn procedures() -> Procedures {
    Procedures::new([Arc::new(OrdersProcedure) as Arc<dyn model::Procedure>])
}

//! Follow: how a change reaches those who follow a branch:module, on this node and on others.

pub(crate) mod follower;
pub(crate) mod remote;
pub(crate) mod serve;

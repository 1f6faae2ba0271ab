//! One binary for every story with real nodes, and for the conventions of the repository.

mod answers;
mod browser;
mod catch_up;
mod command_line;
mod contract;
mod demo;
mod deploy;
mod failover;
mod few_files;
mod keys;
mod large;
mod levels;
mod live;
mod malformed;
mod operators;
mod original;
mod pipelined;
mod readiness;
mod retry;
mod tidy;
mod tutorial;
mod upgrade;
mod write_and_read;

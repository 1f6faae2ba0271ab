//! The house seen from outside: what its integration tests share.

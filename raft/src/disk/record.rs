//! Record: placeholder of the byte layout of turns and records.

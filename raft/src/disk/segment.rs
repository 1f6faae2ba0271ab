//! Segment: placeholder of the log's files.

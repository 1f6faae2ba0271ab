//! Why this file: every connection is an open file, and so is every part of the log. A process out
//! of files must not be met by the log: what it needs is set apart before clients get the rest.

use rustix::process::{Resource, getrlimit, setrlimit};

use actors::status::FileBudget;

use crate::limits::{CONNECTIONS_MIN, FILES_PER_PEER, FILES_RESERVED, FILES_RESERVED_PART};

/// What stands for no limit: more than any process uses.
const UNLIMITED: u64 = 1 << 32;

/// The system lets this process open too few files.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "this process may have {limit} open files, and {reserved} are needed for the log, checkpoints, \
     the store and peers, and {CONNECTIONS_MIN} for clients; raise the limit to {} or more: \
     ulimit -n, or LimitNOFILE= of the service",
    reserved + CONNECTIONS_MIN
)]
pub struct TooFewFiles {
    limit: u64,
    reserved: u64,
}

/// Lets this process have as many open files as it may, and gives how many that is.
pub fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the number of open files stays as it is");
        }
        limit = getrlimit(Resource::Nofile);
    }
    limit.current.unwrap_or(UNLIMITED)
}

/// How so many files are shared out, on a node that knows of so many peers at its start.
///
/// # Errors
/// They are too few to serve at all.
pub fn budget(limit: u64, peers: usize) -> Result<FileBudget, TooFewFiles> {
    let peers = u64::try_from(peers).unwrap_or(u64::MAX);
    let reserved = FILES_RESERVED + FILES_PER_PEER * peers + limit / FILES_RESERVED_PART;
    let left = limit.saturating_sub(reserved);
    if left < CONNECTIONS_MIN {
        return Err(TooFewFiles { limit, reserved });
    }
    let most = gateway::limits::CONNECTIONS_MAX as u64;
    Ok(FileBudget { file_limit: limit, reserved, connections_max: left.min(most) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_log_and_the_peers_leave() {
        let of = |limit, peers| budget(limit, peers);
        let small = of(160, 0).unwrap();
        assert_eq!((small.reserved, small.connections_max), (106, 54));
        let three = of(1024, 2).unwrap();
        assert_eq!((three.reserved, three.connections_max), (168, 856));
        let large = of(1 << 20, 2).unwrap();
        assert_eq!(large.connections_max, gateway::limits::CONNECTIONS_MAX as u64);
    }

    #[test]
    fn too_few_files_are_refused_and_it_says_how_many_are_needed() {
        let refused = budget(64, 0).unwrap_err().to_string();
        assert!(refused.contains("may have 64 open files"), "{refused}");
        assert!(refused.contains("raise the limit to 116 or more"), "{refused}");
    }
}

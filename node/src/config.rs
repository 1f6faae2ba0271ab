//! Config: everything that is configured of a node, once, before anything opens.
//!
//! Promise: file < environment < flags; an unknown key of the file or an unknown `MISHKAH_…`
//! variable is refused with the nearest known name; the whole is checked before a file or a port
//! is touched.
//! Refused: what contradicts itself, naming both sides and the way out; listening beyond this
//! machine without `open`.

mod settings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use actors::BranchQuota;
use actors::limits::ADDRESS_PERCENT;
use gateway::AllowedOrigins;
use model::NodeId;
use raft::Timing;

use crate::limits::MEMORY_MIB_MIN;
use crate::memory::machine_bytes;

/// Names the one thing this node does wrong on purpose; see `model::mutant`.
#[cfg(feature = "mutants")]
pub(crate) const MUTANT: &str = "MISHKAH_MUTANT";

pub use settings::{LogFormat, Settings, unknown_variables};

/// The default HTTP port.
pub const HTTP_PORT: u16 = 3200;
/// The port peers are expected on where a node has peers and none was given.
const PEER_PORT: u16 = 3300;

/// Largest snapshot where none is given, in MiB.
const SNAPSHOT_MAX_MIB: u64 = 512;

/// What a node is told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This node's number.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// The cluster's name; nodes of another one are refused.
    pub cluster: String,
    /// Where everything it must not forget lives.
    pub data: PathBuf,
    /// Where clients dial in.
    pub listen: SocketAddr,
    /// Where peers dial in.
    pub peer_listen: SocketAddr,
    /// Where clients are told to reach it; the listening address where it is not given.
    pub advertise: Option<String>,
    /// The cluster's first nodes and where their peers reach them, this one among them.
    pub peers: BTreeMap<NodeId, String>,
    /// How many partitions a new cluster gets, for ever.
    pub partitions: u16,
    /// How soon a silent leader is replaced.
    pub timing: Timing,
    /// Log written before a checkpoint is due, at least.
    pub checkpoint_log_bytes: u64,
    /// A sync of the disk that takes longer is slow.
    pub sync_slow_after: Duration,
    /// Largest snapshot that clients are sent, in bytes.
    pub snapshot_bytes_max: u64,
    /// What it may hold in memory, in bytes.
    pub memory_max: u64,
    /// How many branches one address may make by writes.
    pub branch_quota: BranchQuota,
    /// Of what clients share, what one address may hold alone, in percent.
    pub address_percent: u8,
    /// Which modules and branches this node brings.
    pub catalogue: CatalogueSource,
    /// The directory whose files browsers may have.
    pub static_files: Option<PathBuf>,
    /// The origins whose pages may change data, besides the node's own.
    pub allowed_origins: AllowedOrigins,
    /// Whether it may listen beyond this machine without authentication.
    pub open: bool,
    /// How it logs.
    pub log: LogFormat,
    /// What it logs: `info`, or a filter such as `info,raft=debug`.
    pub log_level: String,
}

/// Where a node's modules and branches come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueSource {
    /// Nowhere: the cluster's catalogue stays as it is.
    Nothing,
    /// The sample data in the binary.
    Sample,
    /// A data directory of the original.
    Original {
        /// The directory.
        dir: PathBuf,
        /// Whether live data in it is to be left behind.
        seeds_only: bool,
    },
}

/// What is wrong with what a node was told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// Why.
        reason: String,
    },
    /// The file is not what it should be.
    #[error("the configuration {file} is not right: {reason}")]
    Syntax {
        /// Its path.
        file: String,
        /// Where and why.
        reason: String,
    },
    /// A name nobody knows.
    #[error("{place}: {name:?} is not a setting{}", did_you_mean(.nearest.as_ref()))]
    Unknown {
        /// The file, or `environment`.
        place: String,
        /// As written.
        name: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// A value that cannot be.
    #[error("{setting}: {problem}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// It would be open to everybody.
    #[error(
        "{setting} = {address} can be reached from other machines, and nobody has to log in: \
         listen on 127.0.0.1, or say --open (open = true) if the network may be trusted"
    )]
    Open {
        /// The setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

fn did_you_mean(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

fn value(setting: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { setting, problem: problem.into() }
}

impl Config {
    /// The configuration of a node that is told nothing but where its data is: alone, on loopback.
    ///
    /// # Panics
    /// Never: the defaults fit together, as a test proves.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let settings = Settings { data: Some(data.into()), ..Settings::default() };
        Self::check(settings).expect("the defaults fit together")
    }

    /// Checks what was told as a whole.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be, and what would be right.
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let node = NodeId(settings.node.unwrap_or(1));
        if node.0 == 0 {
            return Err(value("node", "nodes are numbered from 1"));
        }
        let listen = address("listen", settings.listen.as_deref())?
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], HTTP_PORT)));
        let peers = peers(node, settings.peers.as_deref().unwrap_or_default())?;
        let peer_listen = match address("peer_listen", settings.peer_listen.as_deref())? {
            Some(address) => address,
            None => default_peer_listen(node, &peers)?,
        };
        let config = Self {
            node,
            name: settings.name.unwrap_or_else(|| format!("node-{node}")),
            cluster: settings.cluster.unwrap_or_else(|| "mishkah".to_owned()),
            data: settings.data.unwrap_or_else(|| PathBuf::from("mishkah-data")),
            listen,
            peer_listen,
            advertise: settings.advertise,
            peers,
            partitions: settings.partitions.unwrap_or(16),
            timing: timing(
                settings.heartbeat_ms,
                settings.election_min_ms,
                settings.election_max_ms,
            )?,
            checkpoint_log_bytes: settings.checkpoint_log_mib.unwrap_or(16) * 1024 * 1024,
            sync_slow_after: settings
                .sync_slow_ms
                .map_or(raft::limits::SYNC_SLOW_AFTER, Duration::from_millis),
            snapshot_bytes_max: settings
                .snapshot_max_mib
                .unwrap_or(SNAPSHOT_MAX_MIB)
                .saturating_mul(1024 * 1024),
            memory_max: memory_max(settings.memory_max_mib, machine_bytes())?,
            branch_quota: branch_quota(
                settings.branches_per_address_burst,
                settings.branches_per_address_per_second,
            )?,
            address_percent: settings.address_percent.unwrap_or(ADDRESS_PERCENT),
            catalogue: catalogue(settings.sample, settings.original, settings.seeds_only)?,
            static_files: settings.static_files,
            allowed_origins: match settings.allowed_origins {
                Some(list) => AllowedOrigins::parse(&list)
                    .map_err(|problem| value("allowed_origins", problem))?,
                None => AllowedOrigins::default(),
            },
            open: settings.open.unwrap_or(false),
            log: settings.log.unwrap_or_default(),
            log_level: settings.log_level.unwrap_or_else(|| "info".to_owned()),
        };
        config.check_whole()?;
        Ok(config)
    }

    fn check_whole(&self) -> Result<(), ConfigError> {
        for (setting, text) in [("name", &self.name), ("cluster", &self.cluster)] {
            let length = text.len();
            if text.is_empty() || length > 64 || text.chars().any(char::is_control) {
                return Err(value(setting, "1 to 64 bytes without control characters"));
            }
        }
        if !self.partitions.is_power_of_two() || self.partitions > 256 {
            let problem = format!(
                "{} partitions: a power of two up to 256; it can never be changed later",
                self.partitions
            );
            return Err(value("partitions", problem));
        }
        if self.checkpoint_log_bytes < 1024 * 1024 {
            return Err(value("checkpoint_log_mib", "at least 1"));
        }
        if self.sync_slow_after < Duration::from_millis(10) {
            return Err(value("sync_slow_ms", "at least 10: no disk is always quicker"));
        }
        // With less, one large write would find no place although nothing else waits.
        if !(15..=100).contains(&self.address_percent) {
            return Err(value("address_percent", "15 to 100; with 100, addresses have no bound"));
        }
        if self.snapshot_bytes_max == 0 {
            return Err(value("snapshot_max_mib", "at least 1"));
        }
        if !self.open
            && let Some((setting, address)) = self.open_addresses().next()
        {
            return Err(ConfigError::Open { setting, address });
        }
        Ok(())
    }

    /// The addresses that other machines can reach.
    pub fn open_addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        [("listen", self.listen), ("peer_listen", self.peer_listen)]
            .into_iter()
            .filter(|(_, address)| !address.ip().is_loopback())
    }

    /// What an operator should know about these settings, in words.
    pub fn warnings(&self) -> Vec<String> {
        let open = self.open_addresses().map(|(setting, address)| {
            format!("{} is open to all: {setting} = {address}, and nobody has to log in", self.name)
        });
        let origins = self.allowed_origins.is_every().then(|| {
            format!(
                "{} lets pages of every origin change data: allowed_origins = *, and any page that \
                 is opened where this node can be reached may do so",
                self.name
            )
        });
        let even = self.peers.len().is_multiple_of(2).then(|| {
            format!(
                "{} first nodes survive no more losses than {}: use an odd number",
                self.peers.len(),
                self.peers.len() - 1
            )
        });
        open.chain(origins).chain(even).collect()
    }

    /// Where clients reach a node that listens at `bound`.
    pub fn http_address(&self, bound: SocketAddr) -> String {
        if let Some(address) = &self.advertise {
            return address.clone();
        }
        if !bound.ip().is_unspecified() {
            return bound.to_string();
        }
        // Listening everywhere says nothing about where to be found; its peers know better.
        let host = self.peers.get(&self.node).and_then(|peer| peer.rsplit_once(':'));
        format!("{}:{}", host.map_or("127.0.0.1", |(host, _)| host), bound.port())
    }
}

fn branch_quota(burst: Option<u32>, per_second: Option<u32>) -> Result<BranchQuota, ConfigError> {
    let usual = BranchQuota::default();
    let refill = match per_second {
        None => usual.refill,
        Some(rate @ 1..=1_000_000) => Duration::from_secs(1) / rate,
        Some(_) => return Err(value("branches_per_address_per_second", "1 to 1000000")),
    };
    Ok(BranchQuota { burst: burst.unwrap_or(usual.burst), refill })
}

fn address(setting: &'static str, text: Option<&str>) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let plain = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    plain.as_deref().unwrap_or(text).parse().map(Some).map_err(|_| {
        value(setting, format!("{text:?} is not an address and port, such as 127.0.0.1:3200"))
    })
}

/// Reads `1=127.0.0.1:3203`; this node alone where nothing is given.
fn peers(node: NodeId, list: &[String]) -> Result<BTreeMap<NodeId, String>, ConfigError> {
    let mut peers = BTreeMap::new();
    for entry in list {
        let bad = || {
            value("peers", format!("{entry:?} is not NUMBER=HOST:PORT, such as 1=127.0.0.1:3203"))
        };
        let (number, address) = entry.split_once('=').ok_or_else(bad)?;
        let number: u64 = number.trim().parse().map_err(|_| bad())?;
        let address = address.trim();
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        if number == 0 || host.is_empty() || port.parse::<u16>().is_err() {
            return Err(bad());
        }
        if peers.insert(NodeId(number), address.to_owned()).is_some() {
            return Err(value("peers", format!("node {number} is given twice")));
        }
    }
    if !list.is_empty() && !peers.contains_key(&node) {
        let problem = format!("this node is {node}, and it is not among them: {list:?}");
        return Err(value("peers", problem));
    }
    peers.entry(node).or_default();
    Ok(peers)
}

/// A node without peers takes any free port: it is not dialled before it is told to others.
fn default_peer_listen(
    node: NodeId,
    peers: &BTreeMap<NodeId, String>,
) -> Result<SocketAddr, ConfigError> {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    match peers.get(&node).filter(|own| !own.is_empty()) {
        Some(own) => own.parse().map_err(|_| {
            let port = own.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            let example = SocketAddr::from(([0, 0, 0, 0], port.unwrap_or(PEER_PORT)));
            value(
                "peer_listen",
                format!("{own:?} is a name: say where to listen for it, such as {example}"),
            )
        }),
        None => Ok(SocketAddr::new(loopback, 0)),
    }
}

/// What a node may hold, in bytes: what it is told, else half of what the machine has.
fn memory_max(mib: Option<u64>, machine: Option<u64>) -> Result<u64, ConfigError> {
    const MIB: u64 = 1024 * 1024;
    let least = MEMORY_MIB_MIN * MIB;
    let Some(mib) = mib else {
        // Where the system does not say how much there is, nothing can be kept free of it.
        return Ok(machine.map_or(u64::MAX, |bytes| (bytes / 2).max(least)));
    };
    if mib < MEMORY_MIB_MIN {
        return Err(value("memory_max_mib", format!("at least {MEMORY_MIB_MIN}")));
    }
    let bytes = mib.saturating_mul(MIB);
    match machine {
        Some(machine) if bytes > machine => {
            let problem = format!("{mib}: this process can have {} at most", machine / MIB);
            Err(value("memory_max_mib", problem))
        }
        Some(_) | None => Ok(bytes),
    }
}

fn timing(
    heartbeat: Option<u64>,
    election_min: Option<u64>,
    election_max: Option<u64>,
) -> Result<Timing, ConfigError> {
    let usual = Timing::default();
    let or = |ms: Option<u64>, usual| ms.map_or(usual, Duration::from_millis);
    let timing = Timing {
        heartbeat: or(heartbeat, usual.heartbeat),
        election_min: or(election_min, usual.election_min),
        election_max: or(election_max, usual.election_max),
    };
    timing.check().map_err(|error| {
        value("heartbeat_ms, election_min_ms, election_max_ms", error.to_string())
    })?;
    Ok(timing)
}

fn catalogue(
    sample: Option<bool>,
    original: Option<PathBuf>,
    seeds_only: Option<bool>,
) -> Result<CatalogueSource, ConfigError> {
    match (sample.unwrap_or(false), original, seeds_only.unwrap_or(false)) {
        (true, Some(_), _) => {
            Err(value("sample", "give either --sample or --original DIR, not both"))
        }
        (_, None, true) => Err(value("seeds_only", "it belongs to --original DIR")),
        (true, None, false) => Ok(CatalogueSource::Sample),
        (false, Some(dir), seeds_only) => Ok(CatalogueSource::Original { dir, seeds_only }),
        (false, None, false) => Ok(CatalogueSource::Nothing),
    }
}

impl fmt::Display for Config {
    /// One line, for the log: there are no secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<String> =
            self.peers.iter().map(|(node, address)| format!("{node}={address}")).collect();
        let Timing { heartbeat, election_min, election_max } = self.timing;
        write!(
            f,
            "node={} name={:?} cluster={:?} data={:?} listen={} peer_listen={} advertise={:?} \
             peers=[{}] partitions={} heartbeat={heartbeat:?} election={election_min:?}-\
             {election_max:?} checkpoint_log_bytes={} sync_slow_after={:?} \
             snapshot_bytes_max={} memory_max={} branches_per_address={}+1/{:?} \
             address_percent={} catalogue={:?} \
             static={:?} allowed_origins=[{}] open={} log={:?} log_level={:?}",
            self.node,
            self.name,
            self.cluster,
            self.data,
            self.listen,
            self.peer_listen,
            self.advertise.as_deref().unwrap_or("as listening"),
            peers.join(", "),
            self.partitions,
            self.checkpoint_log_bytes,
            self.sync_slow_after,
            self.snapshot_bytes_max,
            self.memory_max,
            self.branch_quota.burst,
            self.branch_quota.refill,
            self.address_percent,
            self.catalogue,
            self.static_files,
            self.allowed_origins,
            self.open,
            self.log,
            self.log_level,
        )
    }
}

//! Settings: what a node may be told, in the words of file, environment and flags alike.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde::Deserialize;

use super::ConfigError;

/// What every variable of ours begins with.
const PREFIX: &str = "MISHKAH_";
/// Variables of ours that are no settings of a node: the configuration's path, which node the
/// client subcommands ask, and what tests are told.
const OTHER_VARIABLES: &[&str] = &[
    "MISHKAH_CONFIG",
    "MISHKAH_URL",
    "MISHKAH_ORIGINAL_DATA",
    #[cfg(feature = "mutants")]
    super::MUTANT,
];
/// Names further apart than this are not suggested.
const SIMILAR_MIN: f64 = 0.75;

/// How a node logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line, for machines.
    Json,
}

/// What a node may be told: the keys of its TOML file, its `MISHKAH_…` variables and its flags.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Args)]
#[serde(default)]
pub struct Settings {
    /// This node's number, from 1; never reused for another machine
    #[arg(long, env = "MISHKAH_NODE", value_name = "NUMBER")]
    pub node: Option<u64>,
    /// What people call this node [default: node-NUMBER]
    #[arg(long, env = "MISHKAH_NAME")]
    pub name: Option<String>,
    /// The cluster's name; nodes of another one are refused [default: mishkah]
    #[arg(long, env = "MISHKAH_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// Where everything it must not forget lives [default: ./mishkah-data]
    #[arg(long, env = "MISHKAH_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where clients dial in, REST and WebSocket [default: 127.0.0.1:3200]
    #[arg(long, env = "MISHKAH_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Where other nodes dial in [default: this node's address among the peers]
    #[arg(long, env = "MISHKAH_PEER_LISTEN", value_name = "ADDRESS:PORT")]
    pub peer_listen: Option<String>,
    /// Where clients are told to reach this node [default: where it listens]
    #[arg(long, env = "MISHKAH_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The cluster's first nodes, this one among them: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    #[arg(long, env = "MISHKAH_PEERS", value_name = "NUMBER=HOST:PORT", value_delimiter = ',')]
    pub peers: Option<Vec<String>>,
    /// How many partitions a new cluster gets, for ever: a power of two up to 256 [default: 16]
    #[arg(long, env = "MISHKAH_PARTITIONS", value_name = "NUMBER")]
    pub partitions: Option<u16>,
    /// How often a leader is heard [default: 100]
    #[arg(long, env = "MISHKAH_HEARTBEAT_MS", value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// The shortest random wait before a new leader is chosen [default: 400]
    #[arg(long, env = "MISHKAH_ELECTION_MIN_MS", value_name = "MS")]
    pub election_min_ms: Option<u64>,
    /// The longest random wait before a new leader is chosen [default: 600]
    #[arg(long, env = "MISHKAH_ELECTION_MAX_MS", value_name = "MS")]
    pub election_max_ms: Option<u64>,
    /// Log written before a checkpoint is due, at least [default: 16]
    #[arg(long, env = "MISHKAH_CHECKPOINT_LOG_MIB", value_name = "MIB")]
    pub checkpoint_log_mib: Option<u64>,
    /// A sync of the disk that takes longer is slow; a node with a slow disk leads nothing
    /// [default: 1000]
    #[arg(long, env = "MISHKAH_SYNC_SLOW_MS", value_name = "MS")]
    pub sync_slow_ms: Option<u64>,
    /// Largest snapshot clients are sent, over sockets and REST [default: 512]
    #[arg(long, env = "MISHKAH_SNAPSHOT_MAX_MIB", value_name = "MIB")]
    pub snapshot_max_mib: Option<u64>,
    /// Memory this node may hold, shared out by class; the classes are in `status` [default: half
    /// of the machine's, or of its control group's]
    #[arg(long, env = "MISHKAH_MEMORY_MAX_MIB", value_name = "MIB")]
    pub memory_max_mib: Option<u64>,
    /// Branches that one address may make by writing to them, at once and in the whole cluster; 0
    /// for any number; the same on all nodes [default: 2000]
    #[arg(long, env = "MISHKAH_BRANCHES_PER_ADDRESS_BURST", value_name = "NUMBER")]
    pub branches_per_address_burst: Option<u32>,
    /// Branches that it may make a second after these [default: 20]
    #[arg(long, env = "MISHKAH_BRANCHES_PER_ADDRESS_PER_SECOND", value_name = "NUMBER")]
    pub branches_per_address_per_second: Option<u32>,
    /// Of what all clients of a node share (connections, sockets, waiting writes and queries,
    /// topics), what one address may hold alone, 15 to 100 percent; 100, where all clients come
    /// through one proxy: addresses have no bound [default: 50]
    #[arg(long, env = "MISHKAH_ADDRESS_PERCENT", value_name = "PERCENT")]
    pub address_percent: Option<u8>,
    /// Bring the sample data: two branches, a menu, tables, orders
    #[arg(long, env = "MISHKAH_SAMPLE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub sample: Option<bool>,
    /// Bring the modules, branches, seeds and numbering rules of a directory of the original
    #[arg(long, env = "MISHKAH_ORIGINAL", value_name = "DIR")]
    pub original: Option<PathBuf>,
    /// With --original: leave the live data in it behind
    #[arg(long, env = "MISHKAH_SEEDS_ONLY", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub seeds_only: Option<bool>,
    /// Serve the files of this directory to browsers, besides the API
    #[arg(long = "static", id = "static", env = "MISHKAH_STATIC", value_name = "DIR")]
    #[serde(rename = "static")]
    pub static_files: Option<PathBuf>,
    /// An origin whose pages may change data, besides the node's own; may be given several times:
    /// `https://shop.example`, `loopback` for pages of this machine, `*` for all [default:
    /// loopback]
    #[arg(
        long = "allow-origin",
        id = "allowed_origins",
        env = "MISHKAH_ALLOWED_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub allowed_origins: Option<Vec<String>>,
    /// Listen beyond this machine although nobody has to log in
    #[arg(long, env = "MISHKAH_OPEN", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub open: Option<bool>,
    /// How to log [default: human]
    #[arg(long, env = "MISHKAH_LOG", value_enum)]
    pub log: Option<LogFormat>,
    /// What to log: a level, or a filter such as info,raft=debug [default: info]
    #[arg(long, env = "MISHKAH_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file and the place in it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { file: file.clone(), reason: error.to_string() })?;
        Self::parse(&file, &text)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file and the place in it.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            file: file.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        };
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        let known = names();
        if let Some(name) = table.keys().find(|name| !known.contains_key(*name)) {
            return Err(unknown(file, name, known.into_keys()));
        }
        toml::from_str(text).map_err(syntax)
    }

    /// These settings, and where one is missing, that of `under`.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            node: self.node.or(under.node),
            name: self.name.or(under.name),
            cluster: self.cluster.or(under.cluster),
            data: self.data.or(under.data),
            listen: self.listen.or(under.listen),
            peer_listen: self.peer_listen.or(under.peer_listen),
            advertise: self.advertise.or(under.advertise),
            peers: self.peers.or(under.peers),
            partitions: self.partitions.or(under.partitions),
            heartbeat_ms: self.heartbeat_ms.or(under.heartbeat_ms),
            election_min_ms: self.election_min_ms.or(under.election_min_ms),
            election_max_ms: self.election_max_ms.or(under.election_max_ms),
            checkpoint_log_mib: self.checkpoint_log_mib.or(under.checkpoint_log_mib),
            sync_slow_ms: self.sync_slow_ms.or(under.sync_slow_ms),
            snapshot_max_mib: self.snapshot_max_mib.or(under.snapshot_max_mib),
            memory_max_mib: self.memory_max_mib.or(under.memory_max_mib),
            branches_per_address_burst: self
                .branches_per_address_burst
                .or(under.branches_per_address_burst),
            branches_per_address_per_second: self
                .branches_per_address_per_second
                .or(under.branches_per_address_per_second),
            address_percent: self.address_percent.or(under.address_percent),
            sample: self.sample.or(under.sample),
            original: self.original.or(under.original),
            seeds_only: self.seeds_only.or(under.seeds_only),
            static_files: self.static_files.or(under.static_files),
            allowed_origins: self.allowed_origins.or(under.allowed_origins),
            open: self.open.or(under.open),
            log: self.log.or(under.log),
            log_level: self.log_level.or(under.log_level),
        }
    }
}

/// The settings' names and their variables, as the flags know them.
pub(super) fn names() -> BTreeMap<String, String> {
    let command = Settings::augment_args(Command::new("settings"));
    let arguments = command.get_arguments().filter_map(|argument| {
        let variable = argument.get_env()?.to_str()?.to_owned();
        Some((argument.get_id().to_string(), variable))
    });
    arguments.collect()
}

/// Refuses a variable that begins as ours do and is none.
///
/// # Errors
/// [`ConfigError::Unknown`] with the nearest known name.
pub fn unknown_variables(set: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let known: Vec<String> =
        names().into_values().chain(OTHER_VARIABLES.iter().map(|&name| name.to_owned())).collect();
    for name in set.filter(|name| name.starts_with(PREFIX)) {
        if !known.contains(&name) {
            return Err(unknown("environment", &name, known.into_iter()));
        }
    }
    Ok(())
}

fn unknown(place: &str, name: &str, known: impl Iterator<Item = String>) -> ConfigError {
    let written = name.to_lowercase().replace('-', "_");
    let likeness = |known: &String| strsim::jaro_winkler(&written, &known.to_lowercase());
    let nearest = known
        .map(|known| (likeness(&known), known))
        .filter(|(likeness, _)| *likeness >= SIMILAR_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known);
    ConfigError::Unknown { place: place.to_owned(), name: name.to_owned(), nearest }
}

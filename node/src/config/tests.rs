//! What a node may and may not be told.

use super::*;

fn file(text: &str) -> Result<Config, String> {
    let settings = Settings::parse("node.toml", text).map_err(|error| error.to_string())?;
    Config::check(settings).map_err(|error| error.to_string())
}

#[test]
fn told_nothing_a_node_is_alone_on_loopback() {
    let config = file("").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:3200");
    assert!(config.peer_listen.ip().is_loopback());
    assert_eq!(config.peers.len(), 1);
    assert_eq!((config.partitions, config.name.as_str()), (16, "node-1"));
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert_eq!(config, Config { data: "mishkah-data".into(), ..Config::new("x") });
}

#[test]
fn every_setting_can_be_told_in_a_file() {
    let config = file(
        "node = 2\nname = 'kitchen'\ncluster = 'shop'\ndata = '/d'\nlisten = '127.0.0.1:80'\n\
         peer_listen = '127.0.0.1:81'\nadvertise = 'shop.example:80'\n\
         peers = ['1=a:1', '2=b:2', '3=c:3']\npartitions = 64\nheartbeat_ms = 50\n\
         election_min_ms = 200\nelection_max_ms = 300\ncheckpoint_log_mib = 4\nsnapshot_max_mib = 64\nmemory_max_mib = 200\naddress_percent = 75\nsync_slow_ms = 500\nbranches_per_address_burst = 7\nbranches_per_address_per_second = 4\nsample = false\n\
         original = '/o'\nseeds_only = true\nstatic = '/s'\n\
         allowed_origins = ['https://shop.example', 'loopback']\nopen = false\nlog = 'json'\nlog_level = 'debug'",
    )
    .unwrap();
    assert_eq!(config.peers[&NodeId(3)], "c:3");
    assert_eq!(config.static_files, Some("/s".into()));
    assert_eq!(config.allowed_origins.to_string(), "loopback, https://shop.example");
    assert_eq!(config.snapshot_bytes_max, 64 * 1024 * 1024);
    assert_eq!(config.memory_max, 200 * 1024 * 1024);
    assert_eq!(config.address_percent, 75);
    assert_eq!(config.sync_slow_after.as_millis(), 500);
    let quota = actors::BranchQuota { burst: 7, refill: std::time::Duration::from_millis(250) };
    assert_eq!(config.branch_quota, quota);
    assert_eq!(config.log, LogFormat::Json);
    assert_eq!(config.http_address(config.listen), "shop.example:80");
    assert_eq!(config.catalogue, CatalogueSource::Original { dir: "/o".into(), seeds_only: true });
}

#[test]
fn flags_stand_over_the_file() {
    let flags = Settings { node: Some(3), ..Settings::default() };
    let file = Settings { node: Some(1), partitions: Some(32), ..Settings::default() };
    let both = flags.over(file);
    assert_eq!((both.node, both.partitions), (Some(3), Some(32)));
}

#[test]
fn every_setting_is_merged_and_has_its_variable() {
    let names = settings::names();
    let known = format!("{:?}", Settings::default());
    assert_eq!(names.len(), known.matches(": None").count(), "{known}");
    for (name, variable) in names {
        assert_eq!(variable, format!("MISHKAH_{}", name.to_uppercase()));
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one() {
    assert_eq!(
        file("lisen = '127.0.0.1:1'").unwrap_err(),
        "node.toml: \"lisen\" is not a setting; did you mean \"listen\"?"
    );
    assert_eq!(file("zzz = 1").unwrap_err(), "node.toml: \"zzz\" is not a setting");
    assert!(file("node = 'one'").unwrap_err().contains("node.toml"));
    let variables = |names: &[&str]| unknown_variables(names.iter().map(|n| (*n).to_owned()));
    assert_eq!(
        variables(&["PATH", "MISHKAH_PARTITION"]).unwrap_err().to_string(),
        "environment: \"MISHKAH_PARTITION\" is not a setting; did you mean \"MISHKAH_PARTITIONS\"?"
    );
    assert_eq!(variables(&["MISHKAH_ORIGINAL_DATA", "MISHKAH_DATA", "HOME"]), Ok(()));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (text, part) in [
        ("node = 0", "numbered from 1"),
        ("partitions = 12", "a power of two up to 256"),
        ("listen = '3200'", "is not an address and port"),
        ("peers = ['1:a']", "is not NUMBER=HOST:PORT"),
        ("peers = ['1=a:1', '1=b:1']\npeer_listen = '127.0.0.1:1'", "given twice"),
        ("peers = ['2=a:1']", "it is not among them"),
        ("peers = ['1=shop.example:1']", "such as 0.0.0.0:1"),
        ("heartbeat_ms = 200", "election"),
        ("memory_max_mib = 1", "at least 128"),
        ("branches_per_address_per_second = 0", "1 to 1000000"),
        ("memory_max_mib = 99999999999", "this process can have"),
        ("address_percent = 14", "15 to 100"),
        ("address_percent = 101", "15 to 100"),
        ("sample = true\noriginal = 'd'", "not both"),
        ("seeds_only = true", "belongs to --original"),
        ("allowed_origins = ['shop.example']", "is not an origin"),
        ("allowed_origins = ['null']", "hides where it is from"),
        ("name = ''", "1 to 64 bytes"),
        ("listen = '0.0.0.0:3200'", "say --open"),
        ("peer_listen = '[::]:3200'", "say --open"),
    ] {
        let error = file(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_node_told_nothing_takes_half_of_the_memory_there_is() {
    const GIB: u64 = 1024 * 1024 * 1024;
    assert_eq!(memory_max(None, Some(8 * GIB)), Ok(4 * GIB));
    assert_eq!(memory_max(None, Some(1)), Ok(MEMORY_MIB_MIN * 1024 * 1024));
    assert_eq!(memory_max(Some(512), Some(8 * GIB)), Ok(GIB / 2));
    assert_eq!(memory_max(None, None), Ok(u64::MAX));
}

#[test]
fn open_and_even_clusters_are_warned_about() {
    let open = file("listen = '0.0.0.0:1'\nopen = true").unwrap();
    assert_eq!(open.warnings().len(), 1);
    assert_eq!(open.http_address(open.listen), "127.0.0.1:1");
    let every = file("allowed_origins = ['*']").unwrap();
    assert!(every.warnings()[0].contains("every origin"), "{:?}", every.warnings());
    let even = file("peers = ['1=127.0.0.1:1', '2=127.0.0.1:2']").unwrap();
    assert!(even.warnings()[0].contains("odd number"), "{:?}", even.warnings());
    assert_eq!(even.peer_listen.to_string(), "127.0.0.1:1");
}

/// Whether a node may be told of a mutant, by what it says to the variable.
fn refused_mutant() -> Option<String> {
    let set = ["MISHKAH_MUTANT".to_owned()].into_iter();
    unknown_variables(set).err().map(|error| error.to_string())
}

#[cfg(not(feature = "mutants"))]
#[test]
fn a_node_as_it_is_released_refuses_to_be_a_mutant() {
    assert!(refused_mutant().is_some_and(|refused| refused.contains("MISHKAH_MUTANT")));
}

#[cfg(feature = "mutants")]
#[test]
fn only_documented_mutants_may_be_chosen() {
    assert_eq!(refused_mutant(), None);
    let table = include_str!("../../../docs/mutants.md");
    let documented: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(documented, model::mutant::ALL.map(|(name, _)| name));
}

//! Live data: files the original writes while it runs. Reading its configuration while one of
//! them is there would silently leave a shop's orders behind.

/// The paths that hold live data, in the order given: module states and event logs, databases,
/// counters of sequences.
pub fn live_data(paths: &[String]) -> Vec<String> {
    paths.iter().filter(|path| is_live(path)).cloned().collect()
}

fn is_live(path: &str) -> bool {
    let mut names = path.rsplit(['/', '\\']);
    let file = names.next().unwrap_or(path);
    let directory = names.next();
    // Beside a database lie files such as `.sqlite-wal`, with its latest writes.
    let database = file.contains(".sqlite") || file.ends_with(".db");
    let state = directory == Some("live") && matches!(file, "data.json" | "events.log");
    database || state || file == "sequence-state.json"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_files_are_named_and_configuration_is_not() {
        let live = [
            "branches/dar/modules/pos/live/data.json",
            "branches/dar/modules/pos/live/events.log",
            "branches/dar/sequence-state.json",
            "hybrid-store.sqlite",
            "hybrid-store.sqlite-wal",
            "old.db",
        ];
        let quiet = [
            "modules.json",
            "schemas/live.json",
            "branches/alive/data.json",
            "branches/dar/modules/pos/seeds/initial.json",
            "branches/dar/modules/pos/history/data.json",
            "db",
        ];
        let all: Vec<String> = live.iter().chain(&quiet).map(|path| (*path).to_owned()).collect();
        assert_eq!(live_data(&all), live);
    }
}

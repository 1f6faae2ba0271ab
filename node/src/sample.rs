//! Sample: the data a first try begins with, in the layout of the original's directories and read
//! by the same reader, so that the reader is exercised by everybody.
//!
//! Two branches with a restaurant's point of sale (a menu, tables, staff, a shift and a few
//! orders), and a scratchpad for every branch named `lab:…`.
//!
//! Its modules are lenient and take the `next` version, as a directory of the original does: the
//! original's clients run on it unchanged, and `{"shiftId": "any text", "statusId": "open"}` is an
//! order; every other field has a default.

use std::collections::BTreeMap;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../sample/", $path)))),*]
    };
}

const FILES: [(&str, &str); 8] = files![
    "modules.json",
    "branches.config.json",
    "sequence-rules.json",
    "schemas/pos_schema.json",
    "schemas/scratchpad_schema.json",
    "seeds/pos_menu.json",
    "branches/dar/modules/pos/seeds/initial.json",
    "branches/remal/modules/pos/seeds/initial.json",
];

/// The sample data's files by path.
pub fn files() -> BTreeMap<String, Vec<u8>> {
    FILES.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

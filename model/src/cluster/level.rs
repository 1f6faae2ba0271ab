//! Level: which formats the whole cluster may write (decision 6).

use crate::cluster::{Catalogue, CatalogueError};
use crate::codec;
use crate::level::LevelNotAgreed;

impl Catalogue {
    /// Levels never fall: what was written on one must stay readable for every member.
    pub(super) fn raise_level(&mut self, level: u16) -> Result<(), CatalogueError> {
        if !self.is_formed() {
            return Err(CatalogueError::NotFormed);
        }
        // Every node that is known, running or not: one that comes back must read the log.
        if let Some(node) = self.nodes.values().find(|node| node.level < level) {
            return Err(CatalogueError::LevelTooLow { node: node.id, level });
        }
        self.level = self.level.max(level);
        Ok(())
    }

    /// The level of what is written now.
    pub fn writing_level(&self) -> u16 {
        self.level.max(codec::FIRST_LEVEL)
    }

    /// Whether what needs this level may be written and sent now. Once it may, it may for ever.
    ///
    /// # Errors
    /// [`LevelNotAgreed`]; it must not be written.
    pub fn check_level(&self, needed: u16) -> Result<(), LevelNotAgreed> {
        let agreed = self.writing_level();
        if needed > agreed { Err(LevelNotAgreed { needed, agreed }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{CatalogueChange, CatalogueEntry, NodeRecord};
    use crate::ids::{NodeId, Timestamp};

    fn node(id: u64, level: u16) -> NodeRecord {
        NodeRecord {
            id: NodeId(id),
            name: String::new(),
            http: String::new(),
            peer: String::new(),
            data_id: format!("data-{id}"),
            version: String::new(),
            level,
        }
    }

    fn formed(levels: [u16; 2]) -> Catalogue {
        let nodes = vec![node(1, levels[0]), node(2, levels[1])];
        let placements = std::collections::BTreeMap::new();
        let change = CatalogueChange::Form { cluster_id: "c".to_owned(), nodes, placements };
        let mut catalogue = Catalogue::default();
        take(&mut catalogue, change).unwrap();
        catalogue
    }

    fn take(catalogue: &mut Catalogue, change: CatalogueChange) -> Result<(), CatalogueError> {
        let id = format!("{change:?}");
        catalogue.apply(&CatalogueEntry { id, at: Timestamp(1), change })
    }

    #[test]
    fn a_level_is_agreed_only_when_every_node_knows_it() {
        let mut catalogue = formed([2, 1]);
        assert_eq!(catalogue.writing_level(), 1);
        let refused = take(&mut catalogue, CatalogueChange::RaiseLevel(2));
        assert_eq!(refused, Err(CatalogueError::LevelTooLow { node: NodeId(2), level: 2 }));
        take(&mut catalogue, CatalogueChange::Node(node(2, 2))).unwrap();
        assert_eq!(take(&mut catalogue, CatalogueChange::RaiseLevel(2)), Ok(()));
        assert_eq!(catalogue.writing_level(), 2);
    }

    #[test]
    fn what_needs_a_level_waits_until_it_is_agreed() {
        let mut catalogue = formed([2, 2]);
        assert_eq!(Catalogue::default().check_level(1), Ok(()), "a cluster begins with it");
        assert_eq!(catalogue.check_level(1), Ok(()));
        let refused = LevelNotAgreed { needed: 2, agreed: 1 };
        assert_eq!(catalogue.check_level(2), Err(refused));
        take(&mut catalogue, CatalogueChange::RaiseLevel(2)).unwrap();
        assert_eq!(catalogue.check_level(2), Ok(()));
    }

    #[test]
    fn a_level_never_falls_and_older_builds_are_refused() {
        let mut catalogue = formed([3, 3]);
        take(&mut catalogue, CatalogueChange::RaiseLevel(3)).unwrap();
        take(&mut catalogue, CatalogueChange::RaiseLevel(1)).unwrap();
        assert_eq!(catalogue.level, 3);
        let older = take(&mut catalogue, CatalogueChange::Node(node(2, 2)));
        assert_eq!(older, Err(CatalogueError::LevelTooLow { node: NodeId(2), level: 3 }));
    }
}

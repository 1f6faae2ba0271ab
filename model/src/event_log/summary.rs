//! LogSummary: what an event log remembers about itself, whatever events memory still holds
//! (docs/original/rules.md#event-log). Never forgotten: a purge or a reset is an event like any
//! other.

use imbl::OrdMap;

use crate::delta::{Event, EventChange};
use crate::ids::Timestamp;
use crate::read::{Head, LogCursor, LogHead};

/// The first time, the last event, and the last event of each table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LogSummary {
    pub(crate) first_at: Option<Timestamp>,
    pub(crate) last: Option<LogCursor>,
    /// By the name the table was written under. At most as many as a definition lets resolve.
    pub(crate) tables: OrdMap<String, LogCursor>,
}

impl LogSummary {
    /// Follows the log by one event.
    pub(crate) fn follow(&mut self, event: &Event) {
        let mut cursor = LogCursor {
            key: None,
            id: None,
            event_id: event.id.clone(),
            offset: event.offset,
            at: event.at,
        };
        match &event.change {
            EventChange::Record(change) => {
                cursor.key = Some(change.key.clone());
                cursor.id = change.record.get("id").filter(|id| !id.is_null()).cloned();
                // The name that was written under, alias or not: clients ask by the name they use.
                let sent = change.table_sent.clone();
                let name = sent.unwrap_or_else(|| change.table.to_string());
                self.tables.insert(name, cursor.clone());
            }
            EventChange::Module(_) => {}
        }
        // Kept for ever: the event itself leaves memory.
        self.first_at.get_or_insert(event.at);
        self.last = Some(cursor);
    }

    /// The id of the last event.
    pub(crate) fn last_event(&self) -> Option<&String> {
        self.last.as_ref().map(|last| &last.event_id)
    }

    pub(crate) fn show(&self, head: Head) -> LogHead {
        let tables = self.tables.iter().map(|(name, cursor)| (name.clone(), cursor.clone()));
        LogHead { head, first_at: self.first_at, last: self.last.clone(), tables: tables.collect() }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::{Action, Precondition, Purge, Request, Transaction};
    use crate::read::{Answer, LogHead, Read};
    use crate::reject::Reject;
    use crate::testing::{Shop, mutation};

    fn log(shop: &Shop) -> LogHead {
        let Ok(Answer::Log(log)) = shop.branch().read(&Read::Log) else { panic!("a log") };
        log
    }

    fn write_after(shop: &mut Shop, last_event: Option<Option<String>>) -> Result<(), Reject> {
        let mutations = vec![mutation(Action::Insert, "tickets", "{}").into()];
        let preconditions = last_event.map(Precondition::LastEvent).into_iter().collect();
        shop.run(Request::Transaction(Transaction { mutations, preconditions })).map(|_| ())
    }

    #[test]
    fn a_log_head_has_its_first_time_and_the_last_of_each_table() {
        let mut shop = Shop::lenient();
        let empty = log(&shop);
        assert_eq!((empty.first_at, empty.last, empty.tables.len()), (None, None, 0));
        let first = shop.insert("orders", r#"{"id":"o1"}"#).unwrap();
        let second = shop.insert("order_header", r#"{"id":"o2"}"#).unwrap();
        let third = shop.insert("orders", r#"{"id":"o3"}"#).unwrap();
        let log = log(&shop);
        assert_eq!(log.first_at, Some(first.at));
        assert_eq!(log.head, shop.branch().head());
        let shown: Vec<_> = log
            .tables
            .iter()
            .map(|(name, cursor)| (name.as_str(), cursor.event_id.as_str(), cursor.offset.0))
            .collect();
        assert_eq!(
            shown,
            [("order_header", second.id.as_str(), 2), ("orders", third.id.as_str(), 3)]
        );
        let last = log.last.unwrap();
        assert_eq!((last.event_id.as_str(), last.at), (third.id.as_str(), third.at));
        assert_eq!(last.key.unwrap().as_str(), "o3");
        assert_eq!(last.id.unwrap().as_str(), Some("o3"));
    }

    #[test]
    fn an_act_on_the_module_is_the_last_event_and_no_tables() {
        let mut shop = Shop::lenient();
        shop.insert("dishes", r#"{"id":"d"}"#).unwrap();
        let before = log(&shop);
        let purge = Purge {
            tables: vec!["dishes".to_owned()],
            reason: "end of day".to_owned(),
            requested_by: None,
            reset_events: true,
        };
        let event = shop.operation(Request::Purge(purge)).unwrap().unwrap();
        let after = log(&shop);
        let last = after.last.unwrap();
        assert_eq!((last.event_id.as_str(), last.key, last.id), (event.id.as_str(), None, None));
        assert_eq!((after.tables, after.first_at), (before.tables, before.first_at));
    }

    #[test]
    fn a_write_that_names_an_older_last_event_is_refused() {
        let mut shop = Shop::lenient();
        assert_eq!(
            write_after(&mut shop, Some(Some("evt-x".to_owned()))),
            Err(Reject::LastEvent { expected: None, received: Some("evt-x".to_owned()) })
        );
        write_after(&mut shop, Some(None)).unwrap();
        let first = log(&shop).last.unwrap().event_id;
        assert_eq!(
            write_after(&mut shop, Some(None)),
            Err(Reject::LastEvent { expected: Some(first.clone()), received: None })
        );
        write_after(&mut shop, Some(Some(first.clone()))).unwrap();
        assert!(write_after(&mut shop, Some(Some(first))).is_err(), "the log has gone on");
        write_after(&mut shop, None).unwrap();
        assert_eq!(shop.branch().head().offset.0, 3);
    }
}

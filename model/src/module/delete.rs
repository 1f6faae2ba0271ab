//! Delete: remove a record. A lenient module never checks its version
//! (docs/original/rules.md#versions), a strict one where it is sent; what still points at it is
//! checked when the command ends.

use crate::command::RecordMutation;
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;

impl Plan<'_> {
    pub(super) fn delete(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
    ) -> Result<(), Reject> {
        let key = table.key_of(&mutation.record)?;
        let current = self.module().get(&table.name, &key).cloned();
        if current.is_some() {
            self.check_last_version(table, mutation, &key, current.as_deref())?;
        }
        self.take(table, mutation, key.clone())
            .ok_or_else(|| Reject::NotFound { table: mutation.table.clone(), key })
    }
}

#[cfg(test)]
mod tests {
    use crate::delta::Effect;
    use crate::testing::Shop;

    #[test]
    fn a_record_goes_once_and_its_event_shows_what_went() {
        let mut shop = Shop::lenient();
        shop.insert("dishes", r#"{"id":"d","code":"x"}"#).unwrap();
        let event = shop.delete("dishes", r#"{"id":"d"}"#).unwrap();
        assert_eq!(event.record().unwrap().effect, Effect::Delete);
        assert_eq!(event.record().unwrap().record.get("code").unwrap().as_str(), Some("x"));
        assert_eq!(shop.branch().head().rows, 0);
        let reject = shop.delete("dishes", r#"{"id":"d"}"#).unwrap_err();
        assert_eq!(reject.to_string(), r#"Record not found in table "dishes"."#);
        assert_eq!(shop.delete("dishes", "{}").unwrap_err().code(), "missing-record-key");
    }
}

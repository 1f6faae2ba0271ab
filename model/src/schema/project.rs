//! Project: from what a client sent to the record that is stored.
//!
//! Promise: an inserted record has exactly the schema's fields, in the schema's order, whatever
//! order or spelling (field name or its snake_case twin) was sent. A merge changes only what was
//! sent, and never the key. Lenient drops what the schema does not know, strict refuses it.
//!
//! Versions are the caller's: a `version` the schema does not declare is passed over here, in a
//! versioned table by strict too; one the schema declares is a field like any other.

use crate::definition::Validation;
use crate::entropy::Entropy;
use crate::ids::{BranchId, Timestamp};
use crate::reject::Reject;
use crate::schema::{Field, Kind, Table};
use crate::value::{Object, Value};

/// What an insert may draw on besides the record sent.
#[derive(Debug)]
pub struct InsertContext<'a> {
    /// How much is enforced.
    pub validation: Validation,
    /// Fills a `branchId` field.
    pub branch: &'a BranchId,
    /// The socket's id, fills a `clientId` field.
    pub client: Option<&'a str>,
    /// The commit time.
    pub at: Timestamp,
    /// Fills a missing key.
    pub entropy: &'a mut Entropy,
}

impl Table {
    /// The record an insert stores: every field of the schema, in order, defaults filled in.
    ///
    /// # Errors
    /// Strict only: [`Reject::Invalid`], naming the field and the rule it breaks.
    pub fn project_insert(
        &self,
        sent: &Object,
        ctx: &mut InsertContext<'_>,
    ) -> Result<Object, Reject> {
        if ctx.validation == Validation::Strict {
            self.refuse_unknown(sent)?;
        }
        let mut record = Object::with_capacity(self.fields.len() + 1);
        for field in &self.fields {
            let sent = self.sent_value(sent, field);
            let value = match ctx.validation {
                Validation::Lenient => match sent {
                    Some(value) if !is_nothing(&value) => field.coerce(&value),
                    Some(_) | None => self.default_of(field, ctx)?,
                },
                Validation::Strict => {
                    let value = match sent {
                        Some(value) if field.keeps(&value) => value,
                        Some(_) | None => self.default_of(field, ctx)?,
                    };
                    field.validate(self.name.as_str(), &value)?
                }
            };
            record.push(field.name.clone(), value);
        }
        Ok(record)
    }

    /// The record a merge stores: the current one with the fields sent changed. Shallow: a JSON
    /// field is replaced. `updatedAt` is stamped unless it was sent.
    ///
    /// # Errors
    /// Strict only: [`Reject::Invalid`], naming the field and the rule it breaks.
    pub fn project_merge(
        &self,
        current: &Object,
        patch: &Object,
        validation: Validation,
        at: Timestamp,
    ) -> Result<Object, Reject> {
        let strict = validation == Validation::Strict;
        if strict {
            self.refuse_unknown(patch)?;
        }
        let mut record = current.clone();
        for field in &self.fields {
            if self.key.contains(&field.name) {
                continue; // It is equal as text; the stored spelling stays.
            }
            match self.patched_value(patch, field) {
                Some(value) if strict => {
                    let value = field.validate(self.name.as_str(), &value)?;
                    record.insert(field.name.clone(), value);
                }
                Some(value) => {
                    record.insert(field.name.clone(), field.coerce(&value));
                }
                None if field.is_update_time() => {
                    record.insert(field.name.clone(), at.to_iso().into());
                }
                None => {}
            }
        }
        Ok(record)
    }

    fn refuse_unknown(&self, sent: &Object) -> Result<(), Reject> {
        let own_version = |name: &str| self.versioned && name == "version";
        match sent.iter().find(|(name, _)| self.field(name).is_none() && !own_version(name)) {
            None => Ok(()),
            Some((name, value)) => Err(Reject::Invalid {
                table: self.name.to_string(),
                field: name.to_string(),
                rule: "is not a field of this table".to_owned(),
                value: Reject::show(value),
            }),
        }
    }
}

impl Field {
    /// Whether strict takes a sent value as it is rather than looking for a default: `null` only
    /// where it is a value, empty text only where text is one.
    fn keeps(&self, value: &Value) -> bool {
        if value.is_null() {
            return self.nullable;
        }
        !(self.primary_key && is_nothing(value))
    }

    fn is_update_time(&self) -> bool {
        matches!(&*self.name, "updatedAt" | "updated_at") && self.kind == Kind::Timestamp
    }
}

/// What the original takes for nothing at insert.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

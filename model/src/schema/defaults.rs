//! Defaults: what stands in at insert where nothing was sent (docs/original/schemas.md#defaults).
//!
//! Both ways follow the same order: key, branch, times, client, the schema's default, the kind.
//! Lenient goes to its end and always finds something: `closedAt` is stamped at insert, a text
//! that must not be null is `""`. Strict stops where the schema says nothing: a nullable field is
//! `null`, any other is refused as missing. Strict also invents no key that is a reference or a
//! number, and stamps a nullable time only if its name says it belongs to the record itself.

use crate::definition::Validation;
use crate::ids::Timestamp;
use crate::reject::Reject;
use crate::schema::{Default, Field, FieldType, InsertContext, Table};
use crate::value::{Number, Object, Value};

/// Times every record has from its first moment on, nullable or not.
const OWN_TIMES: [&str; 5] = ["createdAt", "updatedAt", "serverAt", "created_at", "updated_at"];

impl Table {
    /// The value of a field nobody sent.
    ///
    /// # Errors
    /// Strict only: [`Reject::Invalid`] when the field must be given.
    pub(super) fn default_of(
        &self,
        field: &Field,
        ctx: &mut InsertContext<'_>,
    ) -> Result<Value, Reject> {
        let strict = match ctx.validation {
            Validation::Strict => true,
            Validation::Lenient => false,
        };
        // The key before all: a schema's default for a key would name every record alike.
        if field.primary_key && (!strict || field.may_invent_key()) {
            return Ok(field.new_key(strict, ctx));
        }
        // Before the schema's default: a record belongs to the branch whose log it is in, whatever
        // the definition says.
        if &*field.name == "branchId" {
            return Ok(ctx.branch.as_str().into());
        }
        // Times before the schema's default as well, as in the original.
        if field.is_stamped(strict) {
            return Ok(ctx.at.to_iso().into());
        }
        if let ("clientId", Some(client)) = (&*field.name, ctx.client) {
            return Ok(client.into());
        }
        if let Some(default) = &field.default {
            return Ok(match default {
                Default::Value(value) => value.clone(),
                Default::Now => field.commit_time(ctx.at),
                Default::Uuid => ctx.entropy.uuid4().into(),
            });
        }
        match (strict, field.nullable) {
            (false, _) => Ok(field.empty(ctx.at)),
            (true, true) => Ok(Value::Null),
            (true, false) => Err(Reject::Invalid {
                table: self.name.to_string(),
                field: field.name.to_string(),
                rule: "is required".to_owned(),
                value: "missing".to_owned(),
            }),
        }
    }
}

impl Field {
    /// Whether a strict insert finds a value where nothing was sent; a number of a sequence comes
    /// before all this.
    pub(super) fn is_filled(&self) -> bool {
        let has_default = !matches!(&self.default, None | Some(Default::Value(Value::Null)));
        has_default || self.primary_key || &*self.name == "branchId" || self.is_stamped(true)
    }

    /// A key that points elsewhere, or is a number, cannot be made up.
    fn may_invent_key(&self) -> bool {
        match self.kind {
            FieldType::String | FieldType::Opaque => self.references.is_none(),
            FieldType::Integer
            | FieldType::Number
            | FieldType::Boolean
            | FieldType::Json
            | FieldType::Date
            | FieldType::Time
            | FieldType::Timestamp => false,
        }
    }

    /// `id-<uuid>`; a plain uuid where the schema asks for one or a strict field is too short.
    fn new_key(&self, strict: bool, ctx: &mut InsertContext<'_>) -> Value {
        let uuid = ctx.entropy.uuid4();
        // With the field's name in front, as in the original.
        let key = format!("{}-{uuid}", self.name);
        let max = self.max_length.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
        let too_long = strict && key.chars().count() > max;
        if self.default == Some(Default::Uuid) || too_long { uuid.into() } else { key.into() }
    }

    fn is_stamped(&self, strict: bool) -> bool {
        self.kind == FieldType::Timestamp
            && if strict {
                OWN_TIMES.contains(&&*self.name) || (self.name.ends_with("At") && !self.nullable)
            } else {
                self.name.ends_with("At")
            }
    }

    /// The commit time as this kind of field shows it.
    pub(super) fn commit_time(&self, at: Timestamp) -> Value {
        match self.kind {
            FieldType::Date => at.to_day().into(),
            FieldType::Time => at.to_iso()[11..19].into(),
            FieldType::Integer | FieldType::Number => Value::Number(Number::from(at.0)),
            FieldType::String
            | FieldType::Boolean
            | FieldType::Json
            | FieldType::Timestamp
            | FieldType::Opaque => at.to_iso().into(),
        }
    }

    /// The original's last resort, by kind.
    fn empty(&self, at: Timestamp) -> Value {
        match self.kind {
            FieldType::String | FieldType::Integer | FieldType::Number | FieldType::Boolean
                if self.nullable =>
            {
                Value::Null
            }
            FieldType::String => "".into(),
            FieldType::Integer | FieldType::Number => 0_u64.into(),
            FieldType::Boolean => false.into(),
            FieldType::Json => Object::new().into(),
            FieldType::Timestamp => at.to_iso().into(),
            FieldType::Date => at.to_day().into(),
            FieldType::Time | FieldType::Opaque => Value::Null,
        }
    }
}

//! Types: the type names of SQL dialects and of hand-written schemas, as [`FieldType`]s.
//!
//! Case and spaces do not matter. A size belongs to text (`NVARCHAR(60)`), precision and scale to
//! decimals (`DECIMAL(18,2)`); elsewhere (`INT(11)`) they say nothing and are passed over. `uuid`,
//! `blob`, `any` and the like are [`FieldType::Opaque`]; so is a name nobody knows, which is noted.

use crate::schema::FieldType;

/// What a type name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColumnType {
    /// What the field holds.
    pub(super) kind: FieldType,
    /// `60` of `NVARCHAR(60)`.
    pub(super) max_length: Option<u32>,
    /// `18` of `DECIMAL(18,2)`.
    pub(super) precision: Option<u32>,
    /// `2` of `DECIMAL(18,2)`.
    pub(super) scale: Option<u32>,
}

impl ColumnType {
    /// A kind without any size.
    pub(super) fn of(kind: FieldType) -> Self {
        Self { kind, max_length: None, precision: None, scale: None }
    }

    /// Reads a type name as far as it can be, and says what cannot.
    pub(super) fn read(text: &str) -> (Self, Option<String>) {
        let lower = text.trim().to_lowercase();
        let base = lower.split_once('(').map_or(lower.as_str(), |(base, _)| base).trim();
        match (Self::exact(text, &lower), known(base)) {
            (Ok(read), Some(_)) => (read, None),
            (Err(_), None) if !base.is_empty() => {
                (Self::of(FieldType::Opaque), Some(unknown(text)))
            }
            (Ok(read), None) => (read, Some(unknown(text))),
            (Err(problem), kind) => (Self::of(kind.unwrap_or(FieldType::Opaque)), Some(problem)),
        }
    }

    fn exact(text: &str, lower: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "the type {text:?} cannot be read; a type is a name such as \"text\", \
                 \"NVARCHAR(60)\" or \"DECIMAL(18,2)\""
            )
        };
        let (base, sizes) = match lower.split_once('(') {
            Some((base, rest)) => {
                let (inside, _) = rest.split_once(')').ok_or_else(wrong)?;
                (base.trim(), inside)
            }
            None => (lower, ""),
        };
        if base.is_empty() {
            return Err(wrong());
        }
        let mut read = Self::of(known(base).unwrap_or(FieldType::Opaque));
        if base == "enum" {
            return Ok(read); // What is in parentheses are its values.
        }
        let mut sizes = sizes.split(',').map(str::trim);
        // `NVARCHAR(max)` is a text without a bound.
        let first = sizes.next().filter(|size| !size.is_empty() && *size != "max");
        let size = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        match read.kind {
            FieldType::String => read.max_length = first.map(size).transpose()?,
            FieldType::Number => {
                read.precision = first.map(size).transpose()?;
                read.scale = sizes.next().map(size).transpose()?;
            }
            FieldType::Integer
            | FieldType::Boolean
            | FieldType::Json
            | FieldType::Date
            | FieldType::Time
            | FieldType::Timestamp
            | FieldType::Opaque => {}
        }
        Ok(read)
    }
}

fn unknown(text: &str) -> String {
    format!(
        "the type {text:?} is not known; known are text, integer, decimal, boolean, json, date, \
         time, timestamp, uuid, blob, any, and SQL's names for them"
    )
}

/// The kind of a type name; `None` of one that nobody knows.
fn known(base: &str) -> Option<FieldType> {
    let first = base.split_whitespace().next().unwrap_or(base);
    Some(match first {
        "char" | "character" | "varchar" | "varchar2" | "text" | "string" | "nchar"
        | "nvarchar" | "nvarchar2" | "ntext" | "tinytext" | "mediumtext" | "longtext"
        | "citext" | "clob" | "enum" => FieldType::String,
        "integer" | "int" | "smallint" | "bigint" | "tinyint" | "mediumint" | "int2" | "int4"
        | "int8" | "serial" | "bigserial" => FieldType::Integer,
        "number" | "numeric" | "decimal" | "dec" | "float" | "double" | "real" | "money"
        | "smallmoney" => FieldType::Number,
        "bool" | "boolean" | "bit" => FieldType::Boolean,
        "json" | "jsonb" | "object" => FieldType::Json,
        "date" => FieldType::Date,
        "time" => FieldType::Time,
        "datetime" | "datetime2" | "datetimeoffset" | "smalldatetime" => FieldType::Timestamp,
        "uuid" | "guid" | "uniqueidentifier" | "blob" | "tinyblob" | "mediumblob" | "longblob"
        | "binary" | "varbinary" | "bytea" | "image" | "xml" | "array" | "any" => FieldType::Opaque,
        _ if base.contains("timestamp") => FieldType::Timestamp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_of_every_dialect_are_read() {
        for (text, kind, max_length, precision, scale) in [
            ("string", FieldType::String, None, None, None),
            ("NVARCHAR(60)", FieldType::String, Some(60), None, None),
            ("nvarchar(MAX)", FieldType::String, None, None, None),
            ("character varying (20)", FieldType::String, Some(20), None, None),
            ("DECIMAL(18, 2)", FieldType::Number, None, Some(18), Some(2)),
            ("decimal(5)", FieldType::Number, None, Some(5), None),
            ("double precision", FieldType::Number, None, None, None),
            ("INT(11)", FieldType::Integer, None, None, None),
            ("BIT", FieldType::Boolean, None, None, None),
            ("jsonb", FieldType::Json, None, None, None),
            ("DATE", FieldType::Date, None, None, None),
            ("TIME", FieldType::Time, None, None, None),
            ("DATETIME", FieldType::Timestamp, None, None, None),
            ("timestamp(3) with time zone", FieldType::Timestamp, None, None, None),
            ("timestamptz", FieldType::Timestamp, None, None, None),
            ("uuid", FieldType::Opaque, None, None, None),
        ] {
            let read = ColumnType { kind, max_length, precision, scale };
            assert_eq!(ColumnType::read(text), (read, None), "{text}");
        }
    }

    #[test]
    fn a_type_that_cannot_be_read_says_what_would_be_right() {
        for bad in ["", "(60)", "NVARCHAR(60", "NVARCHAR(many)", "DECIMAL(18,x)"] {
            let (_, error) = ColumnType::read(bad);
            assert!(error.unwrap().contains("DECIMAL(18,2)"), "{bad}");
        }
        let (read, error) = ColumnType::read("quantity");
        assert_eq!(read.kind, FieldType::Opaque);
        assert!(error.unwrap().starts_with("the type \"quantity\" is not known; known are text"));
    }
}

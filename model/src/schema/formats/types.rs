//! Types: the type names of SQL dialects and of hand-written schemas, as [`Kind`]s.
//!
//! Case and spaces do not matter. A size belongs to text (`NVARCHAR(60)`), precision and scale to
//! decimals (`DECIMAL(18,2)`); elsewhere (`INT(11)`) they say nothing and are passed over. A name
//! nobody knows (`uuid`, `blob`, …) is [`Kind::Opaque`], as in the original.

use crate::schema::Kind;

/// What a type name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Type {
    /// What the field holds.
    pub(super) kind: Kind,
    /// `60` of `NVARCHAR(60)`.
    pub(super) max_length: Option<u32>,
    /// `18` of `DECIMAL(18,2)`.
    pub(super) precision: Option<u32>,
    /// `2` of `DECIMAL(18,2)`.
    pub(super) scale: Option<u32>,
}

impl Type {
    /// Reads a type name.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_lowercase();
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
            None => (lower.as_str(), ""),
        };
        if base.is_empty() {
            return Err(wrong());
        }
        let kind = kind(base);
        let mut read = Self { kind, max_length: None, precision: None, scale: None };
        let mut sizes = sizes.split(',').map(str::trim);
        let first = sizes.next().filter(|size| !size.is_empty() && *size != "max");
        let size = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        match kind {
            Kind::String => read.max_length = first.map(size).transpose()?,
            Kind::Number => {
                read.precision = first.map(size).transpose()?;
                read.scale = sizes.next().map(size).transpose()?;
            }
            Kind::Integer
            | Kind::Boolean
            | Kind::Json
            | Kind::Date
            | Kind::Time
            | Kind::Timestamp
            | Kind::Opaque => {}
        }
        Ok(read)
    }
}

fn kind(base: &str) -> Kind {
    let first = base.split_whitespace().next().unwrap_or(base);
    match first {
        "char" | "character" | "varchar" | "varchar2" | "text" | "string" | "nchar"
        | "nvarchar" | "nvarchar2" | "ntext" | "tinytext" | "mediumtext" | "longtext"
        | "citext" | "clob" | "enum" => Kind::String,
        "integer" | "int" | "smallint" | "bigint" | "tinyint" | "mediumint" | "int2" | "int4"
        | "int8" | "serial" | "bigserial" => Kind::Integer,
        "number" | "numeric" | "decimal" | "dec" | "float" | "double" | "real" | "money"
        | "smallmoney" => Kind::Number,
        "bool" | "boolean" | "bit" => Kind::Boolean,
        "json" | "jsonb" | "object" => Kind::Json,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "datetime" | "datetime2" | "datetimeoffset" | "smalldatetime" => Kind::Timestamp,
        _ if base.contains("timestamp") => Kind::Timestamp,
        _ => Kind::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_of_every_dialect_are_read() {
        for (text, kind, max_length, precision, scale) in [
            ("string", Kind::String, None, None, None),
            ("NVARCHAR(60)", Kind::String, Some(60), None, None),
            ("nvarchar(MAX)", Kind::String, None, None, None),
            ("character varying (20)", Kind::String, Some(20), None, None),
            ("DECIMAL(18, 2)", Kind::Number, None, Some(18), Some(2)),
            ("decimal(5)", Kind::Number, None, Some(5), None),
            ("double precision", Kind::Number, None, None, None),
            ("INT(11)", Kind::Integer, None, None, None),
            ("BIT", Kind::Boolean, None, None, None),
            ("jsonb", Kind::Json, None, None, None),
            ("DATE", Kind::Date, None, None, None),
            ("TIME", Kind::Time, None, None, None),
            ("DATETIME", Kind::Timestamp, None, None, None),
            ("timestamp(3) with time zone", Kind::Timestamp, None, None, None),
            ("timestamptz", Kind::Timestamp, None, None, None),
            ("uuid", Kind::Opaque, None, None, None),
        ] {
            let read = Type { kind, max_length, precision, scale };
            assert_eq!(Type::read(text), Ok(read), "{text}");
        }
    }

    #[test]
    fn a_type_that_cannot_be_read_says_what_would_be_right() {
        for bad in ["", "(60)", "NVARCHAR(60", "NVARCHAR(many)", "DECIMAL(18,x)"] {
            let error = Type::read(bad).unwrap_err();
            assert!(error.contains("DECIMAL(18,2)"), "{error}");
        }
    }
}

//! The only door to postcard: a version byte, then the bytes.
//!
//! postcard does not describe itself, so every value that outlives the process or leaves the node
//! carries the version of its format first. A reader refuses a version it does not know by name,
//! rather than misreading it.

use serde::{Serialize, de::DeserializeOwned};

/// The version this build writes.
pub const VERSION: u8 = 4;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is not even a version byte.
    #[error("empty bytes where a {what} should be")]
    Empty {
        /// The type's name.
        what: &'static str,
    },
    /// Written by a newer (or foreign) build.
    #[error("a {what} of format {found}; this build reads format {VERSION}")]
    Version {
        /// The type's name.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// The right version, but not a value of the type.
    #[error("damaged {what}: {reason}")]
    Damaged {
        /// The type's name.
        what: &'static str,
        /// The decoder's reason.
        reason: String,
    },
}

fn name<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap_or("value")
}

/// Encodes a value behind its version byte.
///
/// # Panics
/// When a type cannot be encoded by postcard at all (an unsized sequence): a defect of the type,
/// found by its first test.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("our types are all sized for postcard")
}

/// Decodes a value written by [`encode`].
///
/// # Errors
/// [`CodecError`] when the bytes are empty, of another version, damaged, or followed by more.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let what = name::<T>();
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if version != VERSION {
        return Err(CodecError::Version { what, found: version });
    }
    let damaged = |reason: String| CodecError::Damaged { what, reason };
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(damaged(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_carries_its_version() {
        let bytes = encode(&("dar", 7u64));
        assert_eq!(bytes, [4, 3, b'd', b'a', b'r', 7], "golden bytes");
        assert_eq!(decode::<(String, u64)>(&bytes), Ok(("dar".to_owned(), 7)));
    }

    #[test]
    fn foreign_and_damaged_bytes_are_refused_by_name() {
        assert!(matches!(decode::<u64>(&[]), Err(CodecError::Empty { .. })));
        assert_eq!(decode::<u64>(&[9, 1]), Err(CodecError::Version { what: "u64", found: 9 }));
        assert!(matches!(decode::<u64>(&[VERSION, 1, 1]), Err(CodecError::Damaged { .. })));
    }
}

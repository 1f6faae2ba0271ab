//! Params: the parameters after `?`, and percent-encoding.
//!
//! Promise: whatever is sent, the answer is a value or a 400 that says what would be right.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use model::Timestamp;

use crate::error::{ApiError, Problem};

/// The text a percent-encoded one stands for.
pub(crate) fn decoded(text: &str) -> Result<String, ApiError> {
    let bad = || {
        let message = format!("{text:?} is not properly percent-encoded UTF-8");
        ApiError::new(Problem::InvalidEncoding, message)
    };
    let mut escapes = text.split('%').skip(1);
    let hex = |escape: &str| {
        escape.len() >= 2 && escape.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())
    };
    if !escapes.all(hex) {
        return Err(bad());
    }
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| bad())
}

/// The parameters after `?`.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }
}

impl Params {
    /// The value of the first of these names that has one.
    pub(crate) fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.of(name).find(|value| !value.is_empty()))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each parameter with its value.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Every item of every list under these names.
    pub(crate) fn list<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let values = names.iter().flat_map(|name| self.of(name));
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
    }

    /// A whole number.
    pub(crate) fn number(&self, names: &[&str]) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.first(names) else { return Ok(None) };
        let bad = |_| unreadable(names[0], text, "a whole number from 0");
        text.parse().map(Some).map_err(bad)
    }

    /// A time: milliseconds since 1970, or an ISO date.
    pub(crate) fn time(&self, names: &[&str]) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.first(names) else { return Ok(None) };
        let millis = text.parse().ok().filter(|millis| *millis > 1_000_000_000).map(Timestamp);
        let right = "milliseconds since 1970, or a time such as 2026-11-21T08:00:00Z";
        millis
            .or_else(|| Timestamp::parse(text))
            .map(Some)
            .ok_or_else(|| unreadable(names[0], text, right))
    }

    /// Whether a parameter of this name says yes.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.of(name).any(|value| matches!(value, "" | "1" | "true" | "yes"))
    }

    /// Yes or no, if a parameter of these names says so.
    pub(crate) fn yes_or_no(&self, names: &[&str]) -> Result<Option<bool>, ApiError> {
        match self.first(names).map(str::to_lowercase).as_deref() {
            None => Ok(None),
            Some("1" | "true" | "yes" | "on") => Ok(Some(true)),
            Some("0" | "false" | "no" | "off") => Ok(Some(false)),
            Some(other) => Err(unreadable(names[0], other, "true or false")),
        }
    }

    /// The names sent, in the order they came.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A refusal of a parameter: what was given, and what would be right.
pub(crate) fn unreadable(name: &str, given: &str, right: &str) -> ApiError {
    let message = format!("{name} must be {right}, but was {given:?}");
    ApiError::new(Problem::InvalidParameter, message).details([("parameter", name.into())])
}

//! KnownMembers: the members and parameters each kind of request has, in one table, so that none is
//! passed over in silence.
//!
//! Promise: what a strict module's request says beyond its row here is 400 and names what is known;
//! a lenient module's request is answered with `warnings` besides. A new member is added to its
//! row.

mod rows;

use model::{BranchKey, Object, Validation, Value};

use crate::error::{ApiError, Problem};
use crate::params::Params;

pub(crate) use rows::*;

/// Each warning lists what is known: a request of unknown names only would be answered by a
/// hundred times its size.
const WARNINGS_MAX: usize = 20;

/// One kind of request and what it may say.
pub(crate) struct KnownMembers {
    /// What people call it.
    what: &'static str,
    /// The names, each with its synonyms.
    names: &'static [&'static [&'static str]],
}

/// Parameters that are lists: sent several times, they say all of it.
const LISTS: [&str; 8] =
    ["include", "module", "modules", "status", "stage", "type", "shiftId", "moduleIds"];

/// Refuses what names another branch or module than the one its path or socket is of: a strict
/// module is not changed by what was meant for another.
///
/// # Errors
/// `invalid-body` naming both.
pub(crate) fn refuse_other_place(
    sent: &Object,
    key: &BranchKey,
    validation: Validation,
) -> Result<(), ApiError> {
    if validation == Validation::Lenient {
        return Ok(());
    }
    let places = [
        ("branch", ["branchId", "branch"], key.branch.as_str()),
        ("module", ["moduleId", "module"], key.module.as_str()),
    ];
    for (what, names, here) in places {
        let said = |name: &&'static str| Some((*name, sent.get(name)?.key_text()?));
        let mut said = names.iter().filter_map(said).filter(|(_, text)| !text.is_empty());
        if let Some((name, other)) = said.find(|(_, text)| *text != here) {
            let message = format!("{name} is {other:?}, but this request is to {what} {here:?}");
            return Err(ApiError::new(Problem::InvalidBody, message).details([
                ("member", name.into()),
                ("sent", other.into()),
                (what, here.into()),
            ]));
        }
    }
    Ok(())
}

impl KnownMembers {
    /// What a body says beyond it: 400 where that is strict, else a warning for each.
    ///
    /// # Errors
    /// `invalid-body` naming the first unknown member and those that are known, or two members that
    /// mean the same and say different things.
    pub(crate) fn members(
        &self,
        body: &Object,
        validation: Validation,
    ) -> Result<Vec<String>, ApiError> {
        let sent = body.iter().filter(|(_, value)| !value.is_null());
        let sent: Vec<(&str, &Value)> = sent.map(|(name, value)| (&**name, value)).collect();
        self.refuse_contradiction(&sent, validation, &[], |message| {
            ApiError::new(Problem::InvalidBody, message)
        })?;
        self.check(body.iter().map(|(name, _)| &**name), validation, |name, message| {
            ApiError::new(Problem::InvalidBody, message)
                .details([("member", name.into()), ("known", self.listed())])
        })
    }

    /// What the parameters of a request say beyond it: as [`KnownMembers::members`].
    ///
    /// # Errors
    /// `invalid-parameter` naming the first unknown parameter and those that are known, or two that
    /// mean the same and say different things.
    pub(crate) fn params(
        &self,
        params: &Params,
        validation: Validation,
    ) -> Result<Vec<String>, ApiError> {
        let sent: Vec<(&str, &str)> = params.pairs().collect();
        self.refuse_contradiction(&sent, validation, &LISTS, |message| {
            ApiError::new(Problem::InvalidParameter, message)
        })?;
        self.check(params.names(), validation, |name, message| {
            ApiError::new(Problem::InvalidParameter, message)
                .details([("parameter", name.into()), ("known", self.listed())])
        })
    }

    /// Only one of two that mean the same would be read: a strict module is not left to guess
    /// which. What is in `lists` may be sent again and again.
    fn refuse_contradiction<V: PartialEq>(
        &self,
        sent: &[(&str, V)],
        validation: Validation,
        lists: &[&str],
        refused: impl FnOnce(String) -> ApiError,
    ) -> Result<(), ApiError> {
        if validation == Validation::Lenient {
            return Ok(());
        }
        let is_list = |group: &[&str]| lists.iter().any(|name| group.contains(name));
        for group in self.names.iter().filter(|group| !is_list(group)) {
            let mut same = sent.iter().filter(|(name, _)| group.contains(name));
            let Some((first, value)) = same.next() else { continue };
            if let Some((other, _)) = same.find(|(_, other)| other != value) {
                let message = match first == other {
                    true => format!("{first:?} is sent twice, with different values; send one"),
                    false => format!(
                        "{first:?} and {other:?} mean the same of {}, but differ; send one",
                        self.what
                    ),
                };
                return Err(refused(message));
            }
        }
        Ok(())
    }

    fn listed(&self) -> Value {
        Value::Array(self.names.iter().copied().flatten().copied().map(Value::from).collect())
    }

    fn check<'a>(
        &self,
        sent: impl Iterator<Item = &'a str>,
        validation: Validation,
        refused: impl FnOnce(&'a str, String) -> ApiError,
    ) -> Result<Vec<String>, ApiError> {
        let mut unknown = sent.filter(|name| !self.names.iter().any(|group| group.contains(name)));
        let said = |name: &str| match self.names {
            [] => format!("{name:?} is not known of {}, which has none", self.what),
            names => {
                let known = names.concat().join(", ");
                format!("{name:?} is not known of {}; known are {known}", self.what)
            }
        };
        match validation {
            Validation::Strict => match unknown.next() {
                Some(name) => Err(refused(name, said(name))),
                None => Ok(Vec::new()),
            },
            Validation::Lenient => Ok(unknown.take(WARNINGS_MAX).map(said).collect()),
        }
    }
}

//! Route docs: what a resource says of each of its routes: what it does, takes, answers and
//! refuses, and which calls of the store it makes.

use crate::error::Problem;
use crate::scoped_store::StoreCall;

/// The media type of almost every body.
pub(crate) const JSON: &str = "application/json";

/// What is said of one method of one path.
#[derive(Clone)]
pub(crate) struct Op {
    pub(crate) summary: &'static str,
    pub(crate) about: &'static str,
    pub(crate) query: Vec<(&'static str, &'static str, &'static str)>,
    pub(crate) body: Option<&'static str>,
    pub(crate) answers: Vec<(u16, &'static str, &'static str)>,
    pub(crate) refuses: Vec<Problem>,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) decimals: bool,
    pub(crate) is_gone: bool,
    /// Which calls of the store it may make, where that does not follow from the others.
    calls: Option<&'static [StoreCall]>,
}

/// Begins to say something of a method: what it does, in a few words.
pub(crate) fn op(summary: &'static str) -> Op {
    Op {
        summary,
        about: "",
        query: Vec::new(),
        body: None,
        answers: Vec::new(),
        refuses: Vec::new(),
        reads: false,
        writes: false,
        decimals: false,
        is_gone: false,
        calls: None,
    }
}

impl Op {
    /// The original has it, this server does not: it is always refused.
    pub(crate) fn gone(mut self) -> Self {
        self.is_gone = true;
        self.refuses(&[Problem::NotSupported])
    }

    /// What else is worth knowing.
    pub(crate) fn about(mut self, text: &'static str) -> Self {
        self.about = text;
        self
    }

    /// A parameter after `?`, with its shape in the notation.
    pub(crate) fn query(
        mut self,
        name: &'static str,
        shape: &'static str,
        text: &'static str,
    ) -> Self {
        self.query.push((name, shape, text));
        self
    }

    /// What is sent, in the notation.
    pub(crate) fn body(mut self, shape: &'static str) -> Self {
        self.body = Some(shape);
        self
    }

    /// A good answer, in the notation.
    pub(crate) fn answers(mut self, status: u16, shape: &'static str) -> Self {
        self.answers.push((status, JSON, shape));
        self
    }

    /// A good answer that is no JSON.
    pub(crate) fn answers_in(mut self, media: &'static str, shape: &'static str) -> Self {
        self.answers.push((200, media, shape));
        self
    }

    /// What it refuses besides what every request of its kind does.
    pub(crate) fn refuses(mut self, problems: &[Problem]) -> Self {
        self.refuses.extend(problems);
        self
    }

    /// It asks a branch, as freshly as `x-mishkah-read` says.
    pub(crate) fn reads(mut self) -> Self {
        self.reads = true;
        self
    }

    /// It shows records, decimals as `x-mishkah-decimals` says.
    pub(crate) fn shows_decimals(mut self) -> Self {
        self.decimals = true;
        self
    }

    /// It changes something, once for each `idempotency-key`.
    pub(crate) fn writes(mut self) -> Self {
        self.writes = true;
        self
    }

    /// The calls of the store it may make, where it is not the usual one: a read where it
    /// [`reads`](Self::reads), a submit where it [`writes`](Self::writes).
    pub(crate) fn calls(mut self, calls: &'static [StoreCall]) -> Self {
        self.calls = Some(calls);
        self
    }

    /// The calls of the store it may make; none for what needs no principal.
    pub(crate) fn store_calls(&self) -> &'static [StoreCall] {
        match self.calls {
            Some(calls) => calls,
            None if self.writes => &[StoreCall::Submit],
            None if self.reads => &[StoreCall::Read],
            None => &[],
        }
    }

    /// What it may be refused with, by status.
    pub(crate) fn refusals(&self, path: &str) -> Vec<Problem> {
        let mut all = self.refuses.clone();
        let mut also = |if_so: bool, problems: &[Problem]| {
            if if_so {
                all.extend(problems);
            }
        };
        also(path.contains('{'), &[Problem::InvalidName, Problem::InvalidEncoding]);
        also(path.contains("{branch}"), &[Problem::BranchNotFound]);
        also(path.contains("{module}"), &[Problem::ModuleNotFound]);
        also(path.contains("{table}"), &[Problem::TableNotFound]);
        also(!self.query.is_empty(), &[Problem::InvalidParameter]);
        also(self.reads || self.writes, &[Problem::InvalidHeader, Problem::Busy]);
        also(self.decimals, &[Problem::InvalidHeader]);
        also(self.reads || self.writes, &[Problem::Unavailable, Problem::MemoryFull]);
        also(self.writes, &[Problem::BranchQuota, Problem::KeyReused, Problem::OutcomeUnknown]);
        let body = [Problem::InvalidJson, Problem::InvalidBody, Problem::BodyTooLarge];
        also(self.body.is_some(), &body);
        also(true, &[Problem::Defect]);
        let position = |problem: &Problem| Problem::ALL.iter().position(|known| known == problem);
        all.sort_by_key(position);
        all.dedup();
        all
    }
}

/// One method of one path, as it was registered and described.
pub(crate) struct RouteDoc {
    /// As the router has it.
    pub(crate) path: String,
    /// In lower case.
    pub(crate) method: &'static str,
    /// Its resource.
    pub(crate) tag: &'static str,
    /// Whether it is another name of a path described before.
    pub(crate) is_alias: bool,
    /// What is said of it.
    pub(crate) op: Op,
}

impl RouteDoc {
    /// The path as the document has it: what takes the rest of a path is a name like others there.
    pub(crate) fn shown_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let after_braces = self.path.split('{').skip(1);
        after_braces.filter_map(|part| part.split('}').next()).map(|name| name.trim_matches('*'))
    }
}

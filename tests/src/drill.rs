//! Drill: what the programs in `faults` share: their options, and figures shown with their spread.

use std::env;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Options of the form `--name value` and `--name`.
#[derive(Debug, Clone)]
pub struct DrillOptions(Vec<String>);

impl DrillOptions {
    /// The options this program was given; others than `known` are refused.
    ///
    /// # Errors
    /// An unknown option.
    pub fn of_this_program(known: &[&str]) -> Result<Self> {
        let given: Vec<String> = env::args().skip(1).collect();
        match given.iter().find(|arg| arg.starts_with("--") && !known.contains(&arg.as_str())) {
            Some(unknown) => bail!("unknown option {unknown}; there are {known:?}"),
            None => Ok(Self(given)),
        }
    }

    /// The value of an option.
    ///
    /// # Errors
    /// It has none, or one that cannot be read.
    pub fn value<T>(&self, name: &str, default: T) -> Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let Some(at) = self.0.iter().position(|arg| arg == name) else { return Ok(default) };
        let text = self.0.get(at + 1).with_context(|| format!("{name} needs a value"))?;
        text.parse().with_context(|| format!("{name} {text}"))
    }

    /// Whether an option is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|arg| arg == name)
    }
}

/// Figures of several runs.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Takes one more.
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("none"),
            [only] => write!(f, "{only:.2}"),
            [least, .., most] => {
                let median = self.0[self.0.len() / 2];
                write!(f, "{median:.2} (median of {}; {least:.2} to {most:.2})", self.0.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_with_their_spread() {
        let mut figures = Samples::default();
        assert_eq!(figures.to_string(), "none");
        figures.add(2.0);
        assert_eq!(figures.to_string(), "2.00");
        figures.add(1.0);
        figures.add(4.0);
        assert_eq!(figures.to_string(), "2.00 (median of 3; 1.00 to 4.00)");
    }

    #[test]
    fn options_have_defaults_and_are_read() {
        let options = DrillOptions(vec!["--runs".into(), "7".into(), "--all".into()]);
        assert_eq!(options.value("--runs", 1).unwrap(), 7);
        assert_eq!(options.value("--writes", 3).unwrap(), 3);
        assert!(options.has("--all"));
        assert!(options.value("--all", 0).is_err());
    }
}

//! Why the daemon did not start or ended, as one line that says what and how to mend it.

use std::io;
use std::process::ExitCode;

/// A failure that ends the process, with its exit status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for what cannot be: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Something failed while running: exit status 1.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The command line asks for what cannot be.
    pub fn usage(text: &str) -> Self {
        Self::Usage(format!("{text} (see 'ferryfs --help')"))
    }

    /// A system call failed; `mend` tells what to do about it.
    pub fn system(what: impl AsRef<str>, cause: impl Into<io::Error>, mend: &str) -> Self {
        let (what, cause) = (what.as_ref(), cause.into());
        let hint = if mend.is_empty() { String::new() } else { format!("; {mend}") };
        Self::Failed(one_line(&format!("{what}: {cause}{hint}")))
    }

    /// The status the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

/// Folds text into one line: what other programs answer may have several.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_is_told_in_one_line_with_what_to_do() {
        let error = Error::system("cannot open\n/x", io::Error::from_raw_os_error(2), "create it");
        assert_eq!(error.to_string(), "cannot open /x: No such file or directory (os error 2); create it");
    }
}

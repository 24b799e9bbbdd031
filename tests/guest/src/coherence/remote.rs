//! A guest in another machine: what it is asked goes to it over a pipe that has nothing to do with the share, a line of
//! JSON each way.

use std::io::{self, BufRead, Write};

use super::side::{Local, Reply, Request, Side};

/// The host's end of the pipe.
pub struct Remote<R, W> {
    from: R,
    to: W,
}

impl<R: BufRead, W: Write> Remote<R, W> {
    /// Answers come from `from`.
    #[must_use]
    pub fn new(from: R, to: W) -> Self {
        Self { from, to }
    }
}

impl<R: BufRead, W: Write> Side for Remote<R, W> {
    fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        write_line(&mut self.to, request)?;
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// The guest's end: does what it is asked to, until an empty line.
///
/// # Errors
/// When the pipe breaks, or carries something else.
pub fn serve(mut side: Local, from: impl BufRead, mut to: impl Write) -> io::Result<()> {
    for line in from.lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let request = serde_json::from_str(&line)?;
        write_line(&mut to, &side.ask(&request)?)?;
    }
    Ok(())
}

fn write_line(to: &mut impl Write, what: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

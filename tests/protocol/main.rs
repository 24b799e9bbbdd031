//! The protocol as a client sees it: bytes in, bytes out, and what a file system was asked in between.

mod dirents;
mod extensions;
mod fuzz;
mod golden;
mod guest;
mod names;
mod read_only;
mod recorder;
mod replies;
mod requests;
mod session;
